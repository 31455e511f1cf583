"""Images and files that come with a message. Their bytes are kept beside the history, not in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from agentapi.conversation.messages import Attachment, AttachmentKind, Message, UserMessage
from agentapi.decoding.shown import shown
from agentapi.errors import AttachmentRefused, InvalidMessage

MAX_ATTACHMENTS: Final = 100
"""Images and files of one message."""

MAX_URL: Final = 8_192
"""Characters of an address."""

MAX_NAME: Final = 255
"""Characters of a file's name."""

Fetch: TypeAlias = Callable[[Sequence[str]], Awaitable[Mapping[str, bytes]]]
"""Gives the bytes of attachments by their names; those that are there."""

_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[A-Za-z0-9][A-Za-z0-9.+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its bytes, or where the provider finds it.

    Attributes:
        url: An http or https address, fetched by the provider, by nobody else.
        data: The bytes.
        media_type: Such as ``image/png``; needed with `data`.
    """

    url: str | None = None
    data: bytes | None = field(default=None, repr=False)
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A document: its bytes, or where the provider finds it.

    Attributes:
        url: An http or https address, fetched by the provider; not every provider does.
        data: The bytes.
        media_type: Such as ``application/pdf``; needed with `data`.
        name: As the model is told.
    """

    url: str | None = None
    data: bytes | None = field(default=None, repr=False)
    media_type: str | None = None
    name: str | None = None


Part: TypeAlias = str | Image | File
UserInput: TypeAlias = str | Sequence[Part]
"""What a user says: text, or texts, images and files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What a user said, as it is stored.

    Attributes:
        text: All text.
        attachments: Images and files, in order.
        blobs: Their bytes by name.
    """

    text: str
    attachments: tuple[Attachment, ...] = ()
    blobs: Mapping[str, bytes] = field(default_factory=dict)


def content_of(message: object, max_bytes: int | None = None) -> Content:
    """Read what a caller passed as a message.

    Args:
        message: Text, or a list of texts, images and files.
        max_bytes: Most bytes of all images and files together.

    Raises:
        InvalidMessage: It is none of that, or too large.
    """
    if isinstance(message, str):
        return Content(text=message)
    if not isinstance(message, Sequence) or isinstance(message, bytes) or not message:
        raise InvalidMessage(
            f"message is a {type(message).__name__}, expected text, or a list of text, Image and "
            "File"
        )
    texts: list[str] = []
    attachments: list[Attachment] = []
    blobs: dict[str, bytes] = {}
    for number, part in enumerate(message):
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Image | File):
            attachment = _attachment(part, number)
            attachments.append(attachment)
            if part.data is not None and attachment.blob is not None:
                blobs[attachment.blob] = part.data
        else:
            raise InvalidMessage(
                f"part {number} of the message is a {type(part).__name__}, expected text, Image "
                "or File"
            )
    if len(attachments) > MAX_ATTACHMENTS:
        raise InvalidMessage(
            f"message has {len(attachments)} images and files, the limit is {MAX_ATTACHMENTS}"
        )
    size = sum(map(len, blobs.values()))
    if max_bytes is not None and size > max_bytes:
        raise InvalidMessage(
            f"images and files of the message have {size} bytes, the limit is {max_bytes} "
            "(AGENTAPI_MAX_ATTACHMENT_BYTES): shrink them, or pass a url"
        )
    text = "\n".join(texts)
    if not text.strip() and attachments:
        text = " ".join(f"[{describe(attachment)}]" for attachment in attachments)
    return Content(text=text, attachments=tuple(attachments), blobs=blobs)


def _is_media_type(value: object) -> bool:
    return isinstance(value, str) and _MEDIA_TYPE.fullmatch(value) is not None


def _attachment(part: Image | File, number: int) -> Attachment:
    kind = AttachmentKind.IMAGE if isinstance(part, Image) else AttachmentKind.FILE
    where = f"part {number} of the message ({type(part).__name__})"
    if (part.url is None) == (part.data is None):
        raise InvalidMessage(f"{where}: expected either a url or data")
    if part.media_type is not None and not _is_media_type(part.media_type):
        raise InvalidMessage(
            f"{where}: {shown(part.media_type)} is no media type, expected such as 'image/png'"
        )
    name = part.name if isinstance(part, File) else None
    if name is not None and not _is_name(name):
        raise InvalidMessage(
            f"{where}: the name is not valid, expected 1 to {MAX_NAME} characters of Unicode, "
            "none a control character"
        )
    if part.url is not None:
        if not _is_address(part.url):
            raise InvalidMessage(
                f"{where}: the url is neither http nor https, or has no host, or is longer than "
                f"{MAX_URL} characters"
            )
        return Attachment(kind=kind, url=part.url, media_type=part.media_type, name=name)
    if not isinstance(part.data, bytes) or not part.data or part.media_type is None:
        raise InvalidMessage(f"{where}: expected bytes as data, and their media_type")
    return Attachment(
        kind=kind,
        blob=hashlib.sha256(part.data).hexdigest(),
        size=len(part.data),
        media_type=part.media_type,
        name=name,
    )


def _is_name(name: object) -> bool:
    # A lone surrogate is not printable either.
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()


def _is_address(url: object) -> bool:
    if not isinstance(url, str) or len(url) > MAX_URL or not url.isprintable():
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


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
