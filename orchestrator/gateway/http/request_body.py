"""Reading request bodies within limits of size, time and shape."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.types import Receive

from orchestrator.gateway.http.errors import InvalidRequest, TooLarge, TooSlow
from orchestrator.gateway.settings import GatewaySettings

MAX_DEPTH: Final = 64
"""Maximum nesting of lists and objects in a body."""

_INLINE: Final = 65_536
"""Maximum bytes of JSON that are decoded on the event loop. Larger bodies are decoded in a
thread."""

_JSON: Final = re.compile(r"application/(?:[\w.-]+\+)?json")

_LONG_NUMBER: Final = re.compile(rb"\d{19}")


class BodyReader:
    """Reads bodies within the limits of size and time."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._limit = settings.gateway_max_body_bytes
        self._total = settings.gateway_body_timeout
        self._idle = settings.gateway_body_idle

    async def read(self, receive: Receive, headers: Headers) -> bytes:
        """The whole body, or what had arrived when the client disconnected.

        Raises:
            TooLarge: The body is larger than the limit. No more than the limit is held in memory.
            TooSlow: The client took too long, or paused for too long.
        """
        # A client that announces too much is refused before it sends; the count below does not
        # trust it.
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._limit:
            raise self._too_large()
        body = bytearray()
        try:
            # Two limits: a byte now and then would stay within the limit of pauses forever.
            async with asyncio.timeout(self._total):
                more = True
                while more:
                    async with asyncio.timeout(self._idle):
                        message = await receive()
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self._limit:
                        raise self._too_large()
        except TimeoutError:
            raise TooSlow(
                f"the body did not arrive within {self._total:g} seconds, or paused for "
                f"{self._idle:g} (AGENTAPI_GATEWAY_BODY_TIMEOUT, AGENTAPI_GATEWAY_BODY_IDLE)"
            ) from None
        return bytes(body)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the body is larger than {self._limit} bytes (AGENTAPI_GATEWAY_MAX_BODY_BYTES)"
        )


class StrictRoute(APIRoute):
    """A route that takes only JSON which can be stored and sent unchanged; see `decode`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """A handler that decodes bodies with `decode`."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            read = _StrictRequest(request.scope, request.receive)
            await _refuse_other_types(read)
            return await handler(read)

        return strict


async def _refuse_other_types(request: Request) -> None:
    """Refuse a body that is not declared to be plain JSON.

    It would not be read as JSON. A web page of another origin may send one without being asked.

    Raises:
        InvalidRequest: It is not.
    """
    declared = request.headers.get("content-type", "")
    if declared == "application/json" and "content-encoding" not in request.headers:
        # As clients of APIs send it.
        return
    if not await request.body():
        return
    coded = request.headers.get("content-encoding", "identity")
    if coded != "identity":
        raise InvalidRequest(
            f"content-encoding {coded!r} is not supported: send the body uncompressed",
            param="content-encoding",
            code="unsupported_content_encoding",
        )
    if not _JSON.fullmatch(declared.partition(";")[0].strip().lower()):
        raise InvalidRequest(
            f"the body has the content type {declared or 'none'!r}: send it with content-type: "
            "application/json",
            param="content-type",
            code="unsupported_content_type",
        )


class _StrictRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        return decode(body) if len(body) <= _INLINE else await asyncio.to_thread(decode, body)


def decode(body: bytes) -> Any:
    """Decode JSON.

    Raises:
        json.JSONDecodeError: It is not valid JSON, or has something that no message may have:
            numbers of more than 64 bits, lone surrogates, NUL characters, or too deep nesting.
    """
    # The cheap tests on bytes come first: most bodies need none of the walks through the value.
    value = orjson.loads(body)
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deep(value):
        raise json.JSONDecodeError(f"nested more than {MAX_DEPTH} deep", "", 0)
    if b"\\u0000" in body and _any(value, _has_nul):
        raise json.JSONDecodeError("a NUL character", "", 0)
    if _LONG_NUMBER.search(body):
        json.loads(body, parse_int=_checked)
    return value


def _checked(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= (number := int(digits)) < 2**63:
        raise json.JSONDecodeError("a number of more than 64 bits", "", 0)
    return number


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in key for key in value)
    return isinstance(value, str) and "\0" in value


def _any(value: Any, test: Callable[[Any], bool]) -> bool:
    level = [value]
    while level:
        if any(map(test, level)):
            return True
        level = _below(level)
    return False


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [found for found in _below(level) if isinstance(found, dict | list)]
        if not level:
            return False
    return True


def _below(level: list[Any]) -> list[Any]:
    below: list[Any] = []
    for value in level:
        if isinstance(value, dict):
            below += value.values()
        elif isinstance(value, list):
            below += value
    return below
