"""Signing in to the console, and who is kept out of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import httpx2
import pytest
import redis

from orchestrator.gateway.tenants.scopes import Scope
from orchestrator.stack import Stack
from orchestrator.stack.processes import Child, free_port
from tests.faults import until
from tests.gateway.console import Browser, new_key, text_of
from tests.gateway.test_access import agentapi

COOKIE = "agentapi-console"


@pytest.fixture(scope="module")
def stack(stack_for: Callable[..., Stack]) -> Stack:
    """A gateway without workers, with keys."""
    made = stack_for(workers=0, gateway_wrong_keys_per_minute=0, gateway_requests_per_minute=0)
    new_key(made.settings, "acme", {Scope.READ})
    return made


@pytest.fixture(scope="module")
def second(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Another gateway of the same fleet."""
    port = free_port()
    child = Child(
        "second",
        [sys.executable, "-m", "orchestrator.cli.main", "gateway", "--port", str(port)],
        log=tmp_path_factory.mktemp("second") / "gateway.log",
        env={
            "AGENTAPI_REDIS_URL": stack.redis_url,
            "AGENTAPI_BROKER_URL": stack.redis_url,
            "AGENTAPI_GATEWAY_WRONG_KEYS_PER_MINUTE": "5",
        },
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx2.get(f"{url}/healthz", timeout=150).status_code == 200
        except httpx2.TransportError:
            return False

    until(answers)
    yield url
    child.stop()


@pytest.fixture
def browser(stack: Stack) -> Iterator[Browser]:
    assert stack.gateway_url is not None
    made = Browser(stack.gateway_url)
    yield made
    made.close()


def key(stack: Stack, *scopes: Scope) -> str:
    return new_key(stack.settings, "acme", scopes or {Scope.READ})[1]


def cookie_of(answer: httpx2.Response) -> str:
    return str(SimpleCookie(answer.headers["set-cookie"])[COOKIE].value)


def test_a_session_from_its_beginning_to_its_end(
    stack: Stack, second: str, browser: Browser
) -> None:
    asked = browser.get("/console/turns?status=failed&agent=a")
    assert asked.status_code == 303
    sign_in = browser.http.get(asked.headers["location"])
    assert sign_in.status_code == 200
    assert 'value="/console/turns?status=failed&amp;agent=a"' in sign_in.text
    secret = key(stack)
    entered = browser.sign_in(secret, next="/console/turns?status=failed&agent=a")
    assert (entered.status_code, entered.headers["location"]) == (
        303,
        "/console/turns?status=failed&agent=a",
    )
    given = SimpleCookie(entered.headers["set-cookie"])[COOKIE]
    assert given["httponly"]
    assert (given["samesite"], given["path"], given["secure"]) == ("strict", "/console", "")
    assert 0 < int(given["max-age"]) <= 43_200
    assert secret not in entered.headers["set-cookie"]
    assert browser.get("/console/turns").status_code == 200
    token = cookie_of(entered)
    elsewhere = httpx2.Client(base_url=second, cookies={COOKIE: token}, timeout=150)
    assert elsewhere.get("/console/turns").status_code == 200
    client = redis.Redis.from_url(stack.redis_url)
    stored = b"".join(
        name + (client.dump(name) or b"") for name in client.scan_iter("agentapi:gateway:*")
    )
    assert token.encode() not in stored
    assert secret.encode() not in stored
    [session] = [*client.scan_iter("agentapi:gateway:session:*")]
    assert 0 < client.ttl(session) <= 43_200
    out = browser.post("/console/sign-out")
    assert (out.status_code, out.headers["location"]) == (303, "/console/sign-in")
    assert browser.get("/console/turns").status_code == 303
    # Also for whoever has copied the cookie, on all gateways.
    assert elsewhere.get("/console/turns").status_code == 303
    client.close()
    elsewhere.close()
    log = Path(stack.gateway.log).read_text() if stack.gateway else ""
    assert secret not in log
    assert token not in log


def test_a_revoked_key_ends_its_sessions(stack: Stack, browser: Browser) -> None:
    made, secret = new_key(stack.settings, "acme", {Scope.READ})
    browser.sign_in(secret)
    assert browser.get("/console").status_code == 200
    assert "is revoked" in agentapi(stack.redis_url, "keys", "revoke", made.key_id).stdout
    assert browser.get("/console").status_code == 303
    # The part of a page that is kept live leads to the sign-in page as well, and back to the page.
    part = browser.part("/console/turns", status="open")
    assert part.status_code == 401
    assert part.headers["hx-redirect"] == "/console/sign-in?next=%2Fconsole%2Fturns"
    assert browser.sign_in(secret).status_code == 401


def test_a_lost_session_asks_for_the_key_again(stack: Stack, browser: Browser) -> None:
    browser.sign_in(key(stack))
    client = redis.Redis.from_url(stack.redis_url)
    for name in client.scan_iter("agentapi:gateway:session:*"):
        client.delete(name)
    client.close()
    assert browser.get("/console").headers["location"] == "/console/sign-in?next=%2Fconsole"


@pytest.mark.parametrize("token", ["", "x", "é", "a" * 5000, "%00", '"'])
def test_cookies_that_are_no_sessions(browser: Browser, token: str) -> None:
    headers = {b"cookie": f"{COOKIE}={token}; other=1".encode()}
    answer = browser.http.get("/console", headers=headers)
    assert answer.status_code == 303


def test_https_makes_the_cookie_secure(stack: Stack, browser: Browser) -> None:
    # As behind a proxy that ends TLS: only the browser knows.
    origin = browser.url.replace("http:", "https:")
    fields = {"key": key(stack)}
    entered = browser.http.post("/console/sign-in", data=fields, headers={"origin": origin})
    assert SimpleCookie(entered.headers["set-cookie"])[COOKIE]["secure"]


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example",
        "https://evil.example",
        "/console\\@evil.example",
        "/turns",
        "x",
        "\r\nx: y",
    ],
)
def test_after_signing_in_nobody_is_led_elsewhere(
    stack: Stack, browser: Browser, address: str
) -> None:
    entered = browser.sign_in(key(stack), next=address)
    assert (entered.status_code, entered.headers["location"]) == (303, "/console")


def test_guessing_keys_is_slow(stack: Stack, second: str) -> None:
    browser = Browser(second)
    secret = key(stack)
    assert browser.sign_in(secret).status_code == 303
    browser.post("/console/sign-out")
    codes = [browser.sign_in(f"ak-{number}").status_code for number in range(8)]
    assert codes[0] == 401
    assert codes[-1] == 429
    refused = browser.sign_in("ak-9")
    assert int(refused.headers["retry-after"]) >= 1
    assert "Too many invalid keys" in refused.text
    # Whoever has a key, and shares the address with the guesser, gets in.
    assert browser.sign_in(secret).status_code == 303
    browser.close()


def test_a_key_for_the_apis_does_not_open_the_console(stack: Stack, browser: Browser) -> None:
    refused = browser.sign_in(key(stack, Scope.TURNS))
    assert refused.status_code == 403
    assert "agentapi keys create acme --scope read" in text_of(refused.text)
    assert COOKIE not in browser.http.cookies


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "{own}", "sec-fetch-site": "cross-site"},
        {"origin": "{own}", "sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "{own}.evil.example"},
    ],
)
def test_other_pages_change_nothing(
    stack: Stack, browser: Browser, headers: dict[str, str]
) -> None:
    browser.sign_in(key(stack))
    sent = {name: value.replace("{own}", browser.url) for name, value in headers.items()}
    refused = browser.http.post("/console/sign-out", headers=sent)
    assert refused.status_code == 403
    assert "origin_not_allowed" in refused.text
    assert browser.get("/console").status_code == 200, "the session goes on"


def test_other_pages_read_nothing(stack: Stack, browser: Browser) -> None:
    browser.sign_in(key(stack))
    for headers in (
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
    ):
        assert browser.http.get("/console", headers=headers).status_code == 403
    # But they may have links. Browsers send no cookie then: the page leads to itself once more.
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    came = httpx2.get(f"{browser.url}/console/turns?agent=%22%3E", headers=link, timeout=150)
    assert came.status_code == 200
    assert 'content="0; url=/console/turns?agent=%22%3E"' in came.text
    assert browser.http.get("/console", headers=link).status_code == 200


def test_forms_of_other_types_are_refused(stack: Stack, browser: Browser) -> None:
    origin = {"origin": browser.url}
    for sent in ({"json": {"key": "x"}}, {"files": {"key": b"x"}}, {"content": b"key=\xff"}):
        answer = browser.http.post("/console/sign-in", headers=origin, **sent)
        assert answer.status_code == 400
        assert "<h1>" in answer.text


def test_without_keys_only_this_machine_sees_the_console(
    stack_for: Callable[..., Stack],
) -> None:
    stack = stack_for(workers=0)
    browser = Browser(stack.gateway_url or "")
    page = browser.get("/console")
    assert page.status_code == 200
    assert "no keys, this machine only" in text_of(page.text)
    assert "content-security-policy" in page.headers
    for headers, status in (
        ({"host": "evil.example"}, 421),
        ({"x-forwarded-for": "10.0.0.1"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        # Another server of this machine: it may use the APIs, and not the console.
        ({"origin": "http://localhost:3000"}, 403),
    ):
        refused = browser.http.get("/console", headers=headers)
        assert refused.status_code == status, headers
        assert refused.headers["content-type"].startswith("text/html")
        assert "content-security-policy" in refused.headers
    # A browser sends this where it trusts the connection: only there does it honour the policy.
    trusting = {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}
    for path in ("/console", "/console/none"):
        trusted = browser.http.get(path, headers=trusting)
        assert trusted.headers["cross-origin-opener-policy"] == "same-origin"
    assert agentapi(stack.redis_url, "keys", "create", "acme", "--scope", "read").returncode == 0
    assert browser.get("/console").status_code == 303, "the first key closes it"
    browser.close()


def test_scopes_on_the_command_line(stack: Stack) -> None:
    made = agentapi(
        stack.redis_url, "keys", "create", "shop", "--scope", "operate", "--scope", "content"
    )
    assert made.stdout.startswith("ak-")
    listed = agentapi(stack.redis_url, "keys", "list").stdout
    assert [line for line in listed.splitlines() if "shop" in line and "content, operate" in line]
    refused = agentapi(stack.redis_url, "keys", "create", "shop", "--scope", "root")
    assert (refused.returncode, "expected turns, read, content, operate" in refused.stderr) == (
        2,
        True,
    )
