"""A real gateway process beside the rig, through which damaged records are read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from orchestrator.stack import Stack
from tests.fuzz.values import CANARY

LONGEST = 5.0
"""Seconds in which the stream of a turn that has ended must end."""

BEGINNING = 0.1
"""Seconds for which one without an end is read."""

ODD_STATUSES = frozenset({200, 202, 204, 400, 404, 409, 410, 500})


class Reader:
    """Reads everything of a turn as a client does, and deletes its conversation."""

    tenant = "local"

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        assert stack.gateway_url is not None
        self._http = httpx2.Client(base_url=stack.gateway_url, timeout=15)
        self._seen = 0

    def internal(self, public: str) -> str:
        """The id in Redis of a conversation."""
        return f"gw:{self.tenant}:{public}"

    def read(self, public: str, turn_id: str, *, ended: bool) -> None:
        """Every way of reading.

        Args:
            public: The conversation.
            turn_id: A turn of it.
            ended: Whether it has ended: then its streams end as well.

        Raises:
            AssertionError: An answer is not a clear one.
        """
        response = f"resp_{turn_id.replace('-', '')}"
        for path in (
            f"/turns/{turn_id}",
            f"/conversations/{public}/messages",
            f"/v1/responses/{response}",
            f"/v1/conversations/{public}/items",
        ):
            self._ask("GET", path)
        self._stream(f"/turns/{turn_id}/events", ended)
        self._stream(f"/v1/responses/{response}?stream=true", ended)

    def _stream(self, path: str, ended: bool) -> None:
        """A stream, to its end if it has one."""
        with (
            contextlib.suppress(httpx2.ReadTimeout),
            self._http.stream("GET", path, timeout=httpx2.Timeout(5, read=0.5)) as response,
        ):
            if response.status_code != 200:
                response.read()
                _judge(response)
                return
            until = time.monotonic() + (LONGEST if ended else BEGINNING)
            for line in response.iter_lines():
                if time.monotonic() > until:
                    assert not ended, f"{path} has no end: {line[:100]}"
                    break

    def delete(self, public: str) -> None:
        """Delete a conversation, or be told why not; one with a turn that runs takes its time."""
        with contextlib.suppress(httpx2.TimeoutException):
            _judge(self._http.delete(f"/conversations/{public}", timeout=1))

    def _ask(self, method: str, path: str) -> None:
        try:
            _judge(self._http.request(method, path))
        except httpx2.TimeoutException as error:
            raise AssertionError(f"{method} {path} is not answered") from error

    def forget(self) -> None:
        """Begin again with the log."""
        assert self._stack.gateway is not None
        self._seen = len(self._stack.gateway.log.read_text(errors="replace"))

    def check(self) -> None:
        """Raises:
        AssertionError: The gateway has a fault, or its log quotes somebody.
        """
        assert self._stack.gateway is not None
        assert self._stack.gateway.exit_code is None
        text = self._stack.gateway.log.read_text(errors="replace")
        new, self._seen = text[self._seen :], len(text)
        for line in new.splitlines():
            assert CANARY not in line.lower(), f"the gateway's log quotes: {line[:500]}"
            assert "crashed" not in line, line[:500]
            assert "service.failed" not in line, line[:500]

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _judge(response: httpx2.Response) -> None:
    assert response.status_code in ODD_STATUSES, f"{response.status_code}: {response.text[:300]}"
    if response.status_code >= 400:
        error: Any = response.json()["error"]
        assert error["code"] != "internal", f"{response.request.url}: {error}"
        assert error["message"]


@contextmanager
def reading(redis_url: str, folder: Path) -> Iterator[Reader]:
    """A gateway on a Redis that is there."""
    with Stack(
        folder / "gateway",
        workers=0,
        flower=False,
        gateway=True,
        redis_url=redis_url,
        gateway_requests_per_minute=0,
        gateway_turns_in_flight=0,
        gateway_heartbeat=0.05,
    ) as stack:
        reader = Reader(stack)
        try:
            yield reader
        finally:
            reader.close()
