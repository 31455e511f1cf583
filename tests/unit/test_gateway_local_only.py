"""Which requests are served while there are no keys."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from orchestrator.gateway.http.failed_auth_limiter import FailedAuthLimiter
from orchestrator.gateway.http.local_only import refusal

LOCAL = {"host": "127.0.0.1:8080"}


@pytest.mark.parametrize(
    "headers",
    [
        LOCAL,
        {"host": "localhost"},
        {"host": "LOCALHOST:80"},
        {"host": "[::1]:8080"},
        {"host": "127.1.2.3"},
        {**LOCAL, "origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {**LOCAL, "origin": "http://[::1]:3000"},
    ],
)
def test_from_this_machine(headers: dict[str, str]) -> None:
    assert refusal(Headers(headers)) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example@127.0.0.1.evil",
        "0.0.0.0",
        "10.0.0.1",
        "[::]",
        "[fe80::1]",
        "localhost:port",
        "127.0.0.1:99999",
        "localhost, evil.example",
        "2130706433",
    ],
)
def test_other_names(host: str) -> None:
    error = refusal(Headers({"host": host}))
    assert error is not None
    assert (error.status, error.shown_code) == (421, "host_not_allowed")
    assert "agentapi keys create" in str(error)
    assert refusal(Headers({})) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://localhost@evil.example"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_web_pages(headers: dict[str, str]) -> None:
    error = refusal(Headers({**LOCAL, **headers}))
    assert error is not None
    assert (error.status, error.shown_code) == (403, "origin_not_allowed")


@pytest.mark.parametrize(
    "header",
    [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-anything",
        "via",
        "x-real-ip",
    ],
)
def test_proxies(header: str) -> None:
    error = refusal(Headers({**LOCAL, header: "127.0.0.1"}))
    assert error is not None
    assert (error.status, error.shown_code) == (403, "keys_needed")
    assert header in str(error)


def test_two_hosts_of_which_one_is_another() -> None:
    raw = [(b"host", b"localhost"), (b"host", b"evil.example")]
    assert refusal(Headers(raw=raw)) is not None


def test_failures_of_peers_are_counted_and_forgotten() -> None:
    now = 1000.0
    failures = FailedAuthLimiter(3, clock=lambda: now)
    for _ in range(3):
        assert failures.retry_after("10.0.0.1") == 0
        failures.record_failure("10.0.0.1")
    assert failures.retry_after("10.0.0.1") == pytest.approx(20)
    assert failures.retry_after("10.0.0.2") == 0
    now += 20
    assert failures.retry_after("10.0.0.1") == 0
    # One customer has many addresses of IPv6.
    for last in range(3):
        failures.record_failure(f"2001:db8::{last}")
    assert failures.retry_after("2001:db8::ffff") > 0
    assert failures.retry_after("2001:db8:0:1::1") == 0
    unlimited = FailedAuthLimiter(0)
    for _ in range(100):
        unlimited.record_failure("-")
    assert unlimited.retry_after("-") == 0
    for number in range(20_000):
        failures.record_failure(str(number))
    assert len(failures._forgotten_at) <= 10_000
