"""What a gateway accepts before it knows who asks: local requests, within narrow limits."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import redis

from orchestrator.gateway.tenants.keys import KEYS
from orchestrator.stack import Stack
from tests.gateway.conftest import make_key

ROUTES = (
    *("/", "/healthz", "/readyz", "/openapi.json"),
    *("/v1/models", "/v1/responses", "/v1/completions", "/nowhere"),
)

UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(scope="module")
def lone(stack_for: Callable[..., Stack]) -> Stack:
    """A gateway without workers and with short timeouts."""
    return stack_for(
        workers=0,
        gateway_connections=40,
        gateway_header_timeout=3,
        gateway_body_timeout=6,
        gateway_body_idle=3,
        gateway_wrong_keys_per_minute=5,
    )


@pytest.fixture
def http(lone: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=lone.gateway_url or "", timeout=90) as client:
        yield client


def connect(stack: Stack) -> socket.socket:
    port = urlsplit(stack.gateway_url or "").port
    return socket.create_connection(("127.0.0.1", port), timeout=90)


def rest_of(connection: socket.socket) -> bytes:
    """Everything that arrives until the other side closes."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def test_without_keys_only_this_machine_is_served(http: httpx2.Client) -> None:
    assert http.get("/v1/models").status_code in (200, 503)  # no worker says what there is
    assert http.get("/healthz", headers={"host": "localhost:1"}).status_code == 200
    strange: list[tuple[dict[str, str], int, str]] = [
        ({"host": "evil.example"}, 421, "host_not_allowed"),
        ({"host": "evil.example", "origin": "http://evil.example"}, 421, "host_not_allowed"),
        ({"origin": "http://evil.example"}, 403, "origin_not_allowed"),
        ({"x-forwarded-for": "127.0.0.1"}, 403, "keys_needed"),
        ({"via": "1.1 proxy"}, 403, "keys_needed"),
        ({"forwarded": "for=127.0.0.1;host=localhost"}, 403, "keys_needed"),
    ]
    for headers, status, code in strange:
        for route in ROUTES:
            for more in ({}, UPGRADE):
                answer = http.get(route, headers={**headers, **more})
                assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        # A browser sends forms and plain text without asking the server first.
        sent = http.post("/v1/conversations", content=b"{}", headers=headers)
        assert (sent.status_code, sent.json()["error"]["code"]) == (status, code)
        assert "agentapi keys create" in sent.json()["error"]["message"]
    assert http.get("/v1/responses", headers=UPGRADE).status_code == 405


def slow(stack: Stack, count: int, sent: bytes) -> list[socket.socket]:
    connections = [connect(stack) for _ in range(count)]
    for connection in connections:
        connection.sendall(sent)
    return connections


def test_who_sends_too_slowly_is_cut(lone: Stack, http: httpx2.Client) -> None:
    part = b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    silent = slow(lone, 5, b"")
    heads = slow(lone, 5, part)
    bodies = slow(lone, 5, part + b"Content-Length: 100\r\n\r\n{")
    assert http.get("/healthz").status_code == 200
    for connection in (*silent, *heads):
        with closing(connection):
            assert rest_of(connection) == b""
    for connection in bodies:
        with closing(connection):
            # The gateway waits for the rest of the body no longer than the allowed pause.
            answer = rest_of(connection)
            assert b" 408 " in answer.splitlines()[0]
            assert b'"code":"request_timeout"' in answer


def test_a_body_that_trickles_is_cut(lone: Stack) -> None:
    with closing(connect(lone)) as connection:
        connection.sendall(
            b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
        )
        connection.settimeout(0.3)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            # The answer may have come since the last look, and the end of the connection with it.
            with suppress(ConnectionError):
                connection.sendall(b" ")
            try:
                answer = connection.recv(100)
                break
            except TimeoutError:
                continue
        assert b" 408 " in answer


def test_a_second_request_on_a_connection_has_its_time_too(lone: Stack) -> None:
    with closing(connect(lone)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal")
        answer = rest_of(connection)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.count(b"HTTP/1.1") == 1


def test_what_is_no_http_gets_the_error_object(lone: Stack) -> None:
    with closing(connect(lone)) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        answer = rest_of(connection)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b'"code":"invalid_http"' in answer


def test_so_many_connections_and_no_more(lone: Stack, http: httpx2.Client) -> None:
    def full() -> bool:
        # Send nothing more: data for a closed connection could discard the answer.
        with closing(connect(lone)) as last:
            return b'"code":"too_many_connections"' in rest_of(last)

    with ExitStack() as stack:
        silent = [stack.enter_context(closing(connect(lone))) for _ in range(40)]
        # Silent connections make room, the oldest first.
        assert http.get("/healthz").status_code == 200
        assert rest_of(silent[0]) == b""
    with ExitStack() as stack:
        part = b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        deadline = time.monotonic() + 60
        while True:
            # More than the limit: connections without a request make room for others.
            for _ in range(60):
                with suppress(ConnectionError):
                    stack.enter_context(closing(connect(lone))).sendall(part)
            if full():
                break
            assert time.monotonic() < deadline
    deadline = time.monotonic() + 60
    while full():
        assert time.monotonic() < deadline
    assert http.get("/healthz").status_code == 200


def test_keys_are_not_forgotten_and_wrong_ones_are_counted(
    lone: Stack, http: httpx2.Client
) -> None:
    """The last test of its module: from here on the gateway has keys."""
    made = make_key(lone.settings, "acme")
    mine = {"authorization": f"Bearer {made}"}
    unread: dict[str, Any] = {"headers": {"content-length": "900000"}, "content": b"x" * 900000}
    # With keys, any name and any proxy is allowed.
    headers = {**mine, "host": "agents.example", "x-forwarded-for": "10.0.0.1", "via": "x"}
    assert http.get("/turns/none", headers=headers).status_code == 404
    with redis.Redis.from_url(lone.redis_url) as client:
        client.delete(KEYS)
        for _ in range(2):
            # Redis has lost the hash, then everything.
            assert http.post("/v1/responses", **unread).status_code == 401
            client.flushall()
        made = make_key(lone.settings, "acme")
        mine = {"authorization": f"Bearer {made}"}
        assert http.get("/turns/none", headers=mine).status_code == 404
        wrong = {"authorization": "Bearer ak-guess"}
        answers = [http.get("/turns/none", headers=wrong) for _ in range(6)]
        assert answers[0].status_code == 401
        refused = answers[-1]
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            429,
            "too_many_wrong_keys",
        )
        assert int(refused.headers["retry-after"]) >= 1
        # Clients whose key was valid go on.
        assert http.get("/turns/none", headers=mine).status_code == 404


def test_keys_that_redis_lost_while_no_gateway_ran(redis_url: str, stack_for: Any) -> None:
    from agentapi import load_settings

    settings = load_settings(redis_url=redis_url)
    make_key(settings, "acme")
    with redis.Redis.from_url(redis_url) as client:
        client.delete(KEYS)
    stack = stack_for(workers=0, redis_url=redis_url)
    assert httpx2.get(f"{stack.gateway_url}/v1/models", timeout=150).status_code == 401


def test_keys_may_be_demanded_from_the_start(redis_url: str, stack_for: Any) -> None:
    stack = stack_for(workers=0, redis_url=redis_url, gateway_require_keys=True)
    answer = httpx2.get(
        f"{stack.gateway_url}/v1/models", headers={"host": "agents.example"}, timeout=150
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert httpx2.get(f"{stack.gateway_url}/healthz", timeout=150).status_code == 200
