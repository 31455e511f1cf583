"""A request whose message has an image as bytes, an image as a URL, and a file."""

from __future__ import annotations

from dataclasses import replace

from agentapi import File, Image
from agentapi.conversation.messages import UserMessage
from agentapi.conversation.user_input import content_of
from agentapi.providers import ModelRequest

PNG = b"\x89PNG\x00\xff"


def with_attachments(request: ModelRequest) -> ModelRequest:
    """A copy of a request with these attachments."""
    content = content_of(
        [
            "Look",
            Image(data=PNG, media_type="image/png"),
            Image(url="https://example.com/a.jpg"),
            File(data=PNG, media_type="application/pdf", name="a.pdf"),
        ]
    )
    message = UserMessage(content=content.text, attachments=content.attachments)
    return replace(request, messages=[message], blobs=dict(content.blobs))
