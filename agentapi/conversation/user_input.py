"""User input: text, images and files, validated and converted for storage."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from agentapi.conversation.attachments import describe
from agentapi.conversation.messages import Attachment, AttachmentKind
from agentapi.decoding.shown import shown
from agentapi.errors import InvalidMessage

MAX_ATTACHMENTS: Final = 100
"""Maximum images and files in one message."""

MAX_URL: Final = 8_192
"""Maximum characters of a URL."""

MAX_NAME: Final = 255
"""Maximum characters of a file name."""

_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[A-Za-z0-9][A-Za-z0-9.+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its bytes, or a URL.

    Attributes:
        url: An http or https URL; only the provider fetches it.
        data: The bytes.
        media_type: Such as ``image/png``; required with `data`.
    """

    url: str | None = None
    data: bytes | None = field(default=None, repr=False)
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A document: its bytes, or a URL.

    Attributes:
        url: An http or https URL that the provider fetches; not every provider supports this.
        data: The bytes.
        media_type: Such as ``application/pdf``; required with `data`.
        name: The name that the model sees.
    """

    url: str | None = None
    data: bytes | None = field(default=None, repr=False)
    media_type: str | None = None
    name: str | None = None


Part: TypeAlias = str | Image | File
UserInput: TypeAlias = str | Sequence[Part]
"""A user's message: text, or a list of texts, images and files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """A user's message as it is stored.

    Attributes:
        text: The whole text.
        attachments: Images and files, in order.
        blobs: Their bytes by name.
    """

    text: str
    attachments: tuple[Attachment, ...] = ()
    blobs: Mapping[str, bytes] = field(default_factory=dict)


def content_of(message: object, max_bytes: int | None = None) -> Content:
    """Validate a message and split it into text, attachments and bytes.

    Args:
        message: Text, or a list of texts, images and files.
        max_bytes: Maximum bytes of all images and files together.

    Raises:
        InvalidMessage: The message is of another type, or too large.
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
            f"the images and files of the message have {size} bytes, the limit is {max_bytes} "
            "(AGENTAPI_MAX_ATTACHMENT_BYTES): shrink them, or pass a url"
        )
    text = "\n".join(texts)
    if not text.strip() and attachments:
        text = " ".join(f"[{describe(attachment)}]" for attachment in attachments)
    return Content(text=text, attachments=tuple(attachments), blobs=blobs)


def check_message(message: object, max_bytes: int | None = None) -> str:
    """Return the message if it is valid.

    Raises:
        InvalidMessage: It is not text, empty, only whitespace, or longer than `max_bytes`.
    """
    if not isinstance(message, str):
        raise InvalidMessage(f"message is a {type(message).__name__}, expected text")
    if not message.strip():
        raise InvalidMessage("message is empty, expected text")
    try:
        size = len(message.encode())
    except UnicodeEncodeError as error:
        raise InvalidMessage(
            f"message is not valid Unicode at position {error.start}: replace lone surrogates"
        ) from error
    if max_bytes is not None and size > max_bytes:
        raise InvalidMessage(
            f"message has {size} bytes, the limit is {max_bytes} (AGENTAPI_MAX_MESSAGE_BYTES): "
            "shorten it, or put large content where a tool can read it"
        )
    return message


def _is_media_type(value: object) -> bool:
    return isinstance(value, str) and _MEDIA_TYPE.fullmatch(value) is not None


def _attachment(part: Image | File, number: int) -> Attachment:
    kind = AttachmentKind.IMAGE if isinstance(part, Image) else AttachmentKind.FILE
    where = f"part {number} of the message ({type(part).__name__})"
    if (part.url is None) == (part.data is None):
        raise InvalidMessage(f"{where}: expected either a url or data")
    if part.media_type is not None and not _is_media_type(part.media_type):
        raise InvalidMessage(
            f"{where}: {shown(part.media_type)} is not a media type; expected something like "
            "'image/png'"
        )
    name = part.name if isinstance(part, File) else None
    if name is not None and not _is_name(name):
        raise InvalidMessage(
            f"{where}: the name is not valid; expected 1 to {MAX_NAME} Unicode characters without "
            "control characters"
        )
    if part.url is not None:
        if not _is_address(part.url):
            raise InvalidMessage(
                f"{where}: the url is not valid; expected http or https, a host, and at most "
                f"{MAX_URL} characters"
            )
        return Attachment(kind=kind, url=part.url, media_type=part.media_type, name=name)
    if not isinstance(part.data, bytes) or not part.data or part.media_type is None:
        raise InvalidMessage(f"{where}: expected bytes as data, and a media_type")
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
