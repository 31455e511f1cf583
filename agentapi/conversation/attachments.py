"""Images and files that come with a message. Their bytes are kept beside the history, not in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from agentapi.conversation.messages import Attachment, Message, UserMessage
from agentapi.errors import AttachmentRefused

Fetch: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, bytes]]]
"""Gives the bytes of attachments by their names; those that are there."""


def blobs_of(messages: Sequence[Message]) -> list[str]:
    """Names of the bytes that the messages need, each once."""
    found = {
        attachment.blob: None
        for message in messages
        if isinstance(message, UserMessage)
        for attachment in message.attachments
        if attachment.blob is not None
    }
    return list(found)


def describe(attachment: Attachment) -> str:
    """An attachment in words, for who cannot see it."""
    what = attachment.name or attachment.media_type or attachment.kind.value
    return f"{attachment.kind.value} {what}" if what != attachment.kind.value else what


async def no_blobs(names: Sequence[str]) -> Mapping[str, bytes]:
    """A `Fetch` where nothing is kept."""
    return {}


def remembering(fetch: Fetch) -> Fetch:
    """The same, but what was fetched is not fetched again: a name always means the same bytes."""
    found: dict[str, bytes] = {}

    async def fetch_missing(names: Sequence[str]) -> Mapping[str, bytes]:
        if missing := [name for name in names if name not in found]:
            found.update(await fetch(missing))
        return {name: found[name] for name in names if name in found}

    return fetch_missing


def taken_by(
    who: str, takes: Callable[[Attachment], bool], messages: Sequence[Message]
) -> Sequence[Message]:
    """The messages for a provider that does not take every image and file.

    What it does not take of earlier messages is said in words: another provider took it, and the
    conversation goes on with this one.

    Args:
        who: The provider, for the error.
        takes: Whether it takes an attachment.
        messages: The conversation, with the message that is to be answered.

    Raises:
        AttachmentRefused: It does not take what came with the message that is to be answered.
    """
    users = [at for at, message in enumerate(messages) if isinstance(message, UserMessage)]
    # What the model is told of a reply that did not fit has no turn of its own.
    answered = max((at for at in users if messages[at].turn_id), default=max(users, default=None))
    made = list(messages)
    for at in users:
        message = messages[at]
        if not isinstance(message, UserMessage) or all(map(takes, message.attachments)):
            continue
        refused = [attachment for attachment in message.attachments if not takes(attachment)]
        if at == answered:
            raise AttachmentRefused(
                f"{who} does not take {_listed(refused)}: give the agent a provider that does, "
                "pass bytes instead of a url, or say it in words"
            )
        made[at] = replace(
            message,
            content=f"{message.content}\n[not shown: {_listed(refused)}]",
            attachments=tuple(filter(takes, message.attachments)),
        )
    return made


def _listed(attachments: Sequence[Attachment]) -> str:
    """Kinds, not names: an error is not the place for what users say."""
    return ", ".join(
        f"{attachment.kind} by {'url' if attachment.url else 'its bytes'}"
        for attachment in attachments
    )
