"""Reads what a command enqueues: a message, its images and files, and its options."""

from __future__ import annotations

import json
import mimetypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.failures import usage_error

if TYPE_CHECKING:
    from agentapi import File, Image


def message_of(text: str | None, file: str | None) -> str:
    """The message's text.

    Args:
        text: The message given as an argument, if any.
        file: The file with the message, if any; ``-`` is standard input.

    Raises:
        CommandFailed: There is no message, there are two, or the file cannot be read as text.
    """
    if (text is None) == (file is None):
        raise usage_error("give the message either as MESSAGE or with --file")
    if file is None:
        return text or ""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode()
    except OSError as error:
        raise usage_error(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise usage_error(f"{file} is not text in UTF-8; send it with --attach") from error


def attachment_of(place: str) -> Image | File:
    """An image or a file to send with a message.

    Args:
        place: A path, or an http or https URL.

    Raises:
        CommandFailed: The file cannot be read.
    """
    from agentapi import File, Image

    media_type = mimetypes.guess_type(place)[0]
    is_image = media_type is not None and media_type.startswith("image/")
    if place.startswith(("http://", "https://")):
        return Image(url=place) if is_image else File(url=place, media_type=media_type)
    path = Path(place).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise usage_error(f"cannot attach {place}: {error.strerror}") from error
    if is_image:
        return Image(data=data, media_type=media_type)
    return File(data=data, media_type=media_type or "application/octet-stream", name=path.name)


def json_object(option: str, text: str | None) -> dict[str, Any] | None:
    """Parse the JSON object of an option.

    Raises:
        CommandFailed: The value is not a JSON object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise usage_error(f"{option} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise usage_error(f'{option} is not a JSON object, such as \'{{"source": "web"}}\'')
    return value
