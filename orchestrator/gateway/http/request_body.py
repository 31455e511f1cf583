"""Reading a request's body: no larger, no slower, no stranger than the settings allow."""

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

from orchestrator.gateway.http.errors import TooLarge, TooSlow
from orchestrator.gateway.settings import GatewaySettings

MAX_DEPTH: Final = 64
"""Lists and objects within each other in a body."""

_INLINE: Final = 65_536
"""Bytes of JSON that are read on the event loop; more are read in a thread."""

_LONG_NUMBER: Final = re.compile(rb"\d{19}")


class BodyReader:
    """Reads bodies within the bounds of size and time."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._limit = settings.gateway_max_body_bytes
        self._total = settings.gateway_body_timeout
        self._idle = settings.gateway_body_idle

    async def read(self, receive: Receive, headers: Headers) -> bytes:
        """The whole body; what came of it when the client has gone.

        Raises:
            TooLarge: It is; no more of it is kept than the limit.
            TooSlow: The client took too long, or paused for too long.
        """
        declared = headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self._limit:
            raise self._too_large()
        body = bytearray()
        try:
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
                f"the body did not come within {self._total:g} seconds, or paused for "
                f"{self._idle:g} (AGENTAPI_GATEWAY_BODY_TIMEOUT, AGENTAPI_GATEWAY_BODY_IDLE)"
            ) from None
        return bytes(body)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the body is larger than {self._limit} bytes (AGENTAPI_GATEWAY_MAX_BODY_BYTES)"
        )


class StrictRoute(APIRoute):
    """A route whose JSON body can be stored, sent and shown as it is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Read bodies with `decode`."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict


class _StrictRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        return decode(body) if len(body) <= _INLINE else await asyncio.to_thread(decode, body)


def decode(body: bytes) -> Any:
    """Read JSON.

    Raises:
        json.JSONDecodeError: It is no JSON, or has what has no place in a message: numbers of more
            than 64 bits, halves of surrogate pairs, NUL characters, or too deep nesting.
    """
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
