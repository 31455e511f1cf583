"""A real gateway process beside the rig, through which damaged records are read."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import redis

from orchestrator.stack import Stack
from tests.fuzz.values import CANARY

LONGEST = 30.0
"""Seconds in which the stream of a turn that has ended must end."""

BOUND = 60.0
"""Seconds for what takes milliseconds."""

BEGINNING = 0.1
"""Seconds for which one without an end is read."""

ODD_STATUSES = frozenset({200, 202, 204, 400, 404, 409, 410, 500})


class Reader:
    """Reads everything of a turn as a client does, and deletes its conversation."""

    tenant = "local"

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        assert stack.gateway_url is not None
        self._http = httpx2.Client(base_url=stack.gateway_url, timeout=BOUND)
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
            self._http.stream("GET", path, timeout=httpx2.Timeout(BOUND, read=0.5)) as response,
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
        _check_lines("the gateway's log", new)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _judge(response: httpx2.Response) -> None:
    assert response.status_code in ODD_STATUSES, f"{response.status_code}: {response.text[:300]}"
    if response.status_code >= 400:
        error: Any = response.json()["error"]
        assert error["code"] != "internal", f"{response.request.url}: {error}"
        assert error["message"]


class Served:
    """A gateway and a worker, both processes; started when first used.

    Attributes:
        known: Ids that exist, by what they are of.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._seen: dict[Path, int] = {}
        self._said = 0
        self.known: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Of the gateway."""
        if self._stack.gateway_url is None:
            self._start()
        assert self._stack.gateway_url is not None
        return self._stack.gateway_url

    def _start(self) -> None:
        self._stack.start()
        self._http = httpx2.Client(base_url=self.url, timeout=BOUND)
        made = self._http.post("/v1/conversations", json={}).json()["id"]
        body = {"model": "innocent", "input": "Hello", "conversation": made}
        response = self._http.post("/v1/responses", json=body).json()["id"]
        digits = response.removeprefix("resp_")
        turn = f"{digits[:3]}-{digits[3:]}"
        self.known = {"conversation": made, "response": response, "turn": turn}

    def _logs(self) -> list[Path]:
        return [child.log for child in self._stack.children if child.name != "valkey"]

    def forget(self) -> None:
        """Begin again with the logs."""
        assert self.url
        self._seen = {log: len(log.read_text(errors="replace")) for log in self._logs()}

    @contextmanager
    def innocent(self) -> Iterator[None]:
        """Beside the block, another client is answered."""
        self._said += 1
        told = f"Message {self._said}"
        answers: list[httpx2.Response] = []

        def ask() -> None:
            body = {"model": "innocent", "input": told}
            answers.append(self._http.post("/v1/responses", json=body))

        thread = threading.Thread(target=ask, name="innocent", daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join(BOUND)
        assert answers, "an innocent client is not answered"
        assert answers[0].status_code == 200, answers[0].text[:500]
        assert told in answers[0].text

    def check(self) -> None:
        """Raises:
        AssertionError: A process has ended, has a fault, or its log quotes somebody.
        """
        for child in self._stack.children:
            assert child.exit_code is None, f"{child.name} ended"
        for log in self._logs():
            text = log.read_text(errors="replace")
            _check_lines(log.name, text[self._seen.get(log, 0) :])

    def settle(self) -> None:
        """Raises:
        AssertionError: The gateway is not ready, or something was left over.
        """
        self.check()
        ready = self._http.get("/readyz")
        assert ready.status_code == 200, ready.text
        deadline = time.monotonic() + BOUND
        with redis.Redis.from_url(self._stack.redis_url) as client:
            while left := _left(client):
                assert time.monotonic() < deadline, f"left over: {left[:20]}"
                time.sleep(0.05)

    def close(self) -> None:
        """Stop both."""
        if self._stack.gateway_url is not None:
            self._http.close()
            self._stack.stop()


def _left(client: redis.Redis) -> list[str]:
    names = (key.decode("utf-8", "replace") for key in client.scan_iter(count=10_000))
    return [name for name in names if name.endswith((":lease", ":inbox", ":journal", ":due"))]


def _check_lines(name: str, text: str) -> None:
    for line in text.splitlines():
        assert CANARY not in line.lower(), f"{name} quotes: {line[:500]}"
        assert "crashed" not in line, f"{name}: {line[:500]}"
        assert "service.failed" not in line, f"{name}: {line[:500]}"
        assert "Traceback" not in line, f"{name}: {text[:3000]}"


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A gateway and a worker, if they are used."""
    stack = Stack(
        folder / "served",
        agents=("tests.fuzz.agents",),
        workers=1,
        flower=False,
        gateway=True,
        memory_ttl=3600,
        dispatch_grace=2,
        shutdown_grace=1,
        gateway_requests_per_minute=0,
        gateway_turns_in_flight=0,
        gateway_heartbeat=0.3,
    )
    served = Served(stack)
    try:
        yield served
    finally:
        served.close()


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
