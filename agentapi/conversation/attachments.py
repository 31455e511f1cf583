"""Images and files of messages. Their bytes are stored separately from the history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from agentapi.conversation.messages import Attachment, Message, UserMessage
from agentapi.errors import AttachmentRefused

Fetch: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, bytes]]]
"""Fetches the bytes of attachments by name; missing ones are left out."""


def blobs_of(messages: Sequence[Message]) -> list[str]:
    """Names of the bytes that the messages refer to, without duplicates."""
    found = {
        attachment.blob: None
        for message in messages
        if isinstance(message, UserMessage)
        for attachment in message.attachments
        if attachment.blob is not None
    }
    return list(found)


def describe(attachment: Attachment) -> str:
    """A short text description, for readers that cannot see the attachment."""
    what = attachment.name or attachment.media_type or attachment.kind.value
    return f"{attachment.kind.value} {what}" if what != attachment.kind.value else what


async def no_blobs(names: Sequence[str]) -> Mapping[str, bytes]:
    """A `Fetch` that finds nothing."""
    return {}


def remembering(fetch: Fetch) -> Fetch:
    """Cache fetched bytes: a name always refers to the same bytes."""
    found: dict[str, bytes] = {}

    async def fetch_missing(names: Sequence[str]) -> Mapping[str, bytes]:
        if missing := [name for name in names if name not in found]:
            found.update(await fetch(missing))
        return {name: found[name] for name in names if name in found}

    return fetch_missing


def taken_by(
    who: str, takes: Callable[[Attachment], bool], messages: Sequence[Message]
) -> Sequence[Message]:
    """Replace the attachments that a provider does not accept.

    In earlier messages, which another provider may have answered, such attachments are replaced by
    a short text description.

    Args:
        who: The provider, for errors.
        takes: Whether the provider accepts an attachment.
        messages: The conversation, including the message to answer.

    Raises:
        AttachmentRefused: The provider does not accept an attachment of the message to answer.
    """
    users = [at for at, message in enumerate(messages) if isinstance(message, UserMessage)]
    # A message about an invalid reply has no turn id. The message to answer is the one before it.
    answered = max((at for at in users if messages[at].turn_id), default=max(users, default=None))
    made = list(messages)
    for at in users:
        message = messages[at]
        if not isinstance(message, UserMessage) or all(map(takes, message.attachments)):
            continue
        refused = [attachment for attachment in message.attachments if not takes(attachment)]
        if at == answered:
            raise AttachmentRefused(
                f"{who} does not accept {_listed(refused)}: choose a provider that does, pass "
                "bytes instead of a url, or send text instead"
            )
        made[at] = replace(
            message,
            content=f"{message.content}\n[not shown: {_listed(refused)}]",
            attachments=tuple(filter(takes, message.attachments)),
        )
    return made


def _listed(attachments: Sequence[Attachment]) -> str:
    """Kinds instead of names: errors must not quote users."""
    return ", ".join(
        f"{attachment.kind} by {'url' if attachment.url else 'its bytes'}"
        for attachment in attachments
    )
