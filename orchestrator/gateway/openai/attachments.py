"""Images and files in the forms of OpenAI's API.

URLs are passed to the model's provider unchanged: neither the gateway nor a worker fetches them. A
provider in your own network could fetch from internal hosts that clients must not reach; see
`check_addresses`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from agentapi.conversation.user_input import File, Image
from orchestrator.gateway.http.errors import InvalidRequest, UnsupportedParameter
from orchestrator.gateway.openai.public_urls import is_public

_DATA_URL: Final = re.compile(
    r"data:(?P<type>[\w.+/-]+)(?:;[\w-]+=[^;,]*)*;base64,(?P<data>.*)", re.S
)


def attachment_of(part: Mapping[str, Any], place: str) -> Image | File | None:
    """The image or file in a part of a user's message; None for other parts.

    Raises:
        InvalidRequest: It is not valid; names the place.
    """
    match part.get("type"):
        case "input_image":
            _refuse(part, place, {"type", "image_url", "detail"})
            return _image(part.get("image_url"), f"{place}.image_url")
        case "image_url":
            _refuse(part, place, {"type", "image_url"})
            inner = _object(part.get("image_url"), f"{place}.image_url")
            _refuse(inner, f"{place}.image_url", {"url", "detail"})
            return _image(inner.get("url"), f"{place}.image_url.url")
        case "input_file":
            _refuse(part, place, {"type", "file_data", "file_url", "filename"})
            return _file(part, place)
        case "file":
            _refuse(part, place, {"type", "file"})
            inner = _object(part.get("file"), f"{place}.file")
            _refuse(inner, f"{place}.file", {"file_data", "filename"})
            return _file(inner, f"{place}.file")
        case _:
            return None


def _image(url: Any, place: str) -> Image:
    if isinstance(url, str) and url.startswith("data:"):
        media_type, data = _decoded(url, place)
        return Image(data=data, media_type=media_type)
    return Image(url=_address(url, place))


def _file(part: Mapping[str, Any], place: str) -> File:
    name = part.get("filename")
    if name is not None and not isinstance(name, str):
        raise InvalidRequest(f"{place}.filename is not text", param=f"{place}.filename")
    if part.get("file_url") is not None:
        return File(url=_address(part["file_url"], f"{place}.file_url"), name=name)
    media_type, data = _decoded(part.get("file_data"), f"{place}.file_data")
    return File(data=data, media_type=media_type, name=name)


def _decoded(url: Any, place: str) -> tuple[str, bytes]:
    found = _DATA_URL.fullmatch(url) if isinstance(url, str) else None
    try:
        data = base64.b64decode(found["data"], validate=True) if found else b""
    except ValueError:
        # The data is not base64 or not ASCII.
        data = b""
    if found is None or not data:
        raise InvalidRequest(
            f"{place} is not a data URL: expected data:<media type>;base64,<bytes>", param=place
        )
    return found["type"], data


def _address(url: Any, place: str) -> str:
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise InvalidRequest(f"{place} is neither a data URL nor an http(s) URL", param=place)
    return url


def check_addresses(attached: Iterable[Image | File], allowed: str, param: str) -> None:
    """Check that no URL makes a provider fetch from a host that clients must not reach.

    Args:
        attached: Images and files of a message.
        allowed: ``none``, ``public`` or ``any``.
        param: The parameter they came with.

    Raises:
        InvalidRequest: One has a URL that is not allowed.
    """
    for url in (part.url for part in attached if part.url is not None):
        if allowed == "none":
            why = "URLs are not allowed here (AGENTAPI_GATEWAY_ADDRESSES)"
        elif allowed == "public" and not is_public(url):
            why = "the URL is not public (AGENTAPI_GATEWAY_ADDRESSES)"
        else:
            continue
        raise InvalidRequest(
            f"{param}: {why}: send the image or file itself, as a data URL",
            param=param,
            code="address_not_allowed",
        )


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{place} is not an object", param=place)
    return value


def _refuse(part: Mapping[str, Any], place: str, known: set[str]) -> None:
    for name in part:
        if name not in known:
            raise UnsupportedParameter(f"{place}.{name} is not supported", param=f"{place}.{name}")
