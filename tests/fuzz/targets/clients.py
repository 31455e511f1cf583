"""What clients send to the gateway: every route, valid requests that are changed on their way."""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from hypothesis import strategies as st

from tests.fuzz.mutations import Mutation, mutations
from tests.fuzz.served import Served
from tests.fuzz.values import CANARY

BODIES: Final[Mapping[str, Any]] = {
    "POST /v1/responses": {
        "model": "innocent",
        "input": [
            {"type": "message", "role": "assistant", "content": f"{CANARY} before"},
            {"role": "user", "content": [{"type": "input_text", "text": f"{CANARY} hi"}]},
        ],
        "conversation": None,
        "background": False,
        "stream": False,
        "metadata": {"a": CANARY},
        "user": "ann",
    },
    "POST /v1/chat/completions": {
        "model": "innocent",
        "messages": [
            {"role": "user", "content": f"{CANARY} hi"},
            {"role": "assistant", "content": "hello", "refusal": None},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": CANARY},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                ],
            },
        ],
        "stream": False,
        "stream_options": None,
        "metadata": {"conversation_id": "chats"},
    },
    "POST /v1/conversations": {
        "items": [{"type": "message", "role": "user", "content": CANARY}],
        "metadata": {"a": CANARY},
    },
    "POST /v1/conversations/{conversation}": {"metadata": {"a": CANARY}},
    "POST /v1/conversations/{conversation}/items": {
        "items": [{"type": "message", "role": "user", "content": CANARY}]
    },
    "POST /conversations/{conversation}/turns": {
        "agent": "innocent",
        "message": f"{CANARY} hi",
        "user_id": "ann",
        "metadata": {"a": {"b": [CANARY]}},
        "context": {"a": {"b": [CANARY]}},
        "stream": True,
        "on_busy": "enqueue",
        "on_abort": "drop",
    },
    "POST /turns/{turn}/calls/{call}": {"verdict": "approved", "reason": CANARY, "by": "ann"},
}

READS: Final = (
    "GET /turns/{turn}",
    "GET /turns/{turn}/events?after={number}",
    "POST /turns/{turn}/cancel",
    "GET /turns/{turn}/calls",
    "GET /conversations/{conversation}/messages?after={number}&limit={limit}",
    "DELETE /conversations/{odd}",
    "GET /v1/responses/{response}",
    "GET /v1/responses/{response}?stream=true&starting_after={number}",
    "POST /v1/responses/{response}/cancel",
    "GET /v1/responses/{response}/input_items?after={odd}&limit={limit}&order={odd}",
    "DELETE /v1/responses/{odd}",
    "GET /v1/conversations/{conversation}",
    "GET /v1/conversations/{conversation}/items?after={odd}&limit={limit}",
    "GET /v1/conversations/{conversation}/items/{odd}",
    "DELETE /v1/conversations/{conversation}/items/{odd}",
    "GET /v1/models",
    "GET /v1/models/{odd}",
)

NUMBERS: Final = (
    *("-1", "0", "1", "-2", "9007199254740993", "99999999999999999999", "1e3", "0x1", "٣", "%00"),
    *("NaN", "", " 1", "+1", "1" * 5000),
)
ODD_TEXTS: Final = (
    *("none", "%00", "%ff", "%ed%a0%bd", "..", "%2e%2e%2f", "a%2fb", "%0d%0aX-A:%20b", "*", "{}"),
    *("asc", "x" * 513, "%F0%9F%98%80" * 100, "resp_" + "0" * 35, "000-" + "0" * 32, "msg_", "🙂"),
)
HEADERS: Final[tuple[tuple[str, bytes], ...]] = (
    ("content-type", b"application/json"),
    ("content-type", b"text/plain"),
    ("content-type", b"application/json; charset=utf-16"),
    ("content-type", b"multipart/form-data; boundary=x"),
    ("content-encoding", b"gzip"),
    ("last-event-id", b"0"),
    ("last-event-id", b"-1"),
    ("last-event-id", b"99999999999999999"),
    ("last-event-id", b"\xd9\xa3"),
    ("last-event-id", b"\xff" + CANARY.encode()),
    ("idempotency-key", CANARY.encode()),
    ("idempotency-key", b"x" * 600),
    ("idempotency-key", b"\xff\x01"),
    ("x-request-id", CANARY.encode() * 100),
    ("authorization", b"Basic " + CANARY.encode()),
    ("authorization", b"Bearer " + b"\xff" * 20),
    ("accept", b"text/event-stream"),
    ("range", b"bytes=0-1"),
    ("expect", b"100-continue"),
    ("host", b"127.0.0.1"),
    ("transfer-encoding", b"gzip, chunked"),
    ("content-length", b"-1"),
    ("content-length", b"1_0"),
)
"""Beside those that the client sends; the last ones are told only as bytes on a socket."""

STATUSES: Final = frozenset(
    {200, 202, 204, 400, 401, 403, 404, 405, 408, 409, 410, 411, 413, 415, 421, 422, 429, 431, 501}
)
"""What a client may be answered, besides a turn's failure: nothing here makes one fail."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A request."""

    route: str
    mutation: Mutation
    number: str
    odd: str
    header: tuple[str, bytes] | None
    stream: bool


class ClientTarget:
    """See the module."""

    name = "clients"
    examples = 100

    def __init__(self, served: Served) -> None:
        self._served = served
        self._numbers = itertools.count()

    def strategy(self) -> st.SearchStrategy[Sent]:
        """See `Target.strategy`."""
        written = st.builds(
            Sent,
            route=st.sampled_from(sorted(BODIES)),
            mutation=st.one_of(mutations(), mutations(), st.just(Mutation())),
            number=st.just("0"),
            odd=st.just("none"),
            header=st.one_of(st.none(), st.none(), st.sampled_from(HEADERS)),
            stream=st.booleans(),
        )
        read = st.builds(
            Sent,
            route=st.sampled_from(READS),
            mutation=st.just(Mutation()),
            number=st.sampled_from(NUMBERS),
            odd=st.sampled_from(ODD_TEXTS),
            header=st.one_of(st.none(), st.sampled_from(HEADERS)),
            stream=st.just(False),
        )
        return st.one_of(written, written, read)

    def attack(self, example: Sent) -> None:
        """See `Target.attack`."""
        self._served.forget()
        method, _, path = example.route.partition(" ")
        path = self._filled(path, example)
        body = self._body(example)
        with self._served.innocent():
            status, answer = self._exchange(method, path, body, example.header)
        self._served.check()
        assert status in STATUSES, f"{method} {path[:200]}: {status} {answer[:300]!r}"
        if status >= 400 and answer:
            self._judge(status, answer)

    def _filled(self, path: str, example: Sent) -> str:
        known = self._served.known
        values = {
            "number": example.number,
            "limit": example.number,
            "odd": example.odd,
            "call": example.odd,
            **known,
        }
        return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], path)

    def _body(self, example: Sent) -> bytes | None:
        valid = BODIES.get(example.route)
        if valid is None:
            return None
        if example.stream and "stream" in valid:
            valid = {**valid, "stream": True}
        return example.mutation.text(valid)

    def _exchange(
        self, method: str, path: str, body: bytes | None, header: tuple[str, bytes] | None
    ) -> tuple[int, bytes]:
        """On a socket of its own: no client library would send all of this."""
        url = urlsplit(self._served.url)
        lines = [f"{method} {path} HTTP/1.1".encode(), f"Host: {url.netloc}".encode()]
        named = header[0] if header else ""
        if body is not None and named != "content-type":
            lines.append(b"Content-Type: application/json")
        if body is not None and named not in ("content-length", "transfer-encoding"):
            lines.append(f"Content-Length: {len(body)}".encode())
        if header:
            lines.append(header[0].encode() + b": " + header[1])
        lines += [b"Connection: close", b"", body or b""]
        with socket.create_connection((url.hostname or "", url.port or 80), timeout=30) as wire:
            wire.sendall(b"\r\n".join(lines))
            return _answer(wire)

    def _judge(self, status: int, answer: bytes) -> None:
        text = answer.decode()
        if not text.startswith("{"):
            # The server's own, of what is not HTTP.
            assert len(text) < 200, text[:300]
            return
        error = json.loads(text)["error"]
        assert error["message"], error
        assert error["code"] != "internal", error
        assert len(error["message"]) < 3_000, error["message"][:300]

    def settle(self) -> None:
        """See `Target.settle`."""
        self._served.settle()


def _answer(wire: socket.socket) -> tuple[int, bytes]:
    """Status and body; a stream to its end."""
    received = b""
    while piece := wire.recv(65_536):
        received += piece
    if not received:
        # What is not HTTP at all is not answered.
        return 400, b""
    head, _, body = received.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" in head.lower():
        body = b"".join(_chunks(body))
    return status, body


def _chunks(body: bytes) -> list[bytes]:
    found: list[bytes] = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            break
        found.append(body[:length])
        body = body[length + 2 :]
    return found
