"""Every route of the gateway with keys of every scope."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.gateway.console.routing import ConsoleRoute
from orchestrator.gateway.http.authentication import PUBLIC_PATHS
from orchestrator.gateway.tenants.scopes import Scope, allowed_by
from tests.gateway.conftest import Served
from tests.gateway.console import Browser, new_key, routes

PUBLIC = {
    ("GET", "/console/sign-in"),
    ("POST", "/console/sign-in"),
    ("POST", "/console/sign-out"),
    ("GET", "/console/static/{name}"),
}
"""Routes of the console that need no key. One more is one more hole: think twice."""

CHANGING = {Scope.TURNS, Scope.OPERATE}
"""Scopes that may change something."""

ROUTES = sorted((method, route.path) for method, route in routes())


@pytest.fixture(scope="module")
def keys(served: Served) -> dict[Scope, str]:
    """A key of each scope alone."""
    return {scope: new_key(served.stack.settings, "acme", {scope})[1] for scope in Scope}


@pytest.fixture(scope="module")
def browsers(served: Served, keys: dict[Scope, str]) -> Iterator[dict[Scope, Browser]]:
    """A browser for each key. One whose key does not open the console has not signed in."""
    found = {scope: Browser(served.url) for scope in Scope}
    for scope, browser in found.items():
        entered = browser.sign_in(keys[scope])
        assert entered.status_code == (403 if scope is Scope.TURNS else 303)
    yield found
    for browser in found.values():
        browser.close()


def needed(method: str, path: str) -> frozenset[Scope] | None:
    """Scopes of which one opens a route; None if it needs none."""
    if path in PUBLIC_PATHS:
        return None
    if not path.startswith("/console"):
        return frozenset({Scope.TURNS})
    [route] = [route for verb, route in routes() if (verb, route.path) == (method, path)]
    assert isinstance(route, ConsoleRoute), path
    return route.scopes


def filled(path: str) -> str:
    return path.replace("{turn_id}", f"000-{'0' * 32}").replace("{", "").replace("}", "")


def test_there_are_routes() -> None:
    assert ("GET", "/console") in ROUTES
    assert ("POST", "/v1/responses") in ROUTES
    assert ("GET", "/turns/{turn_id}") in ROUTES


@pytest.mark.parametrize(("method", "path"), [r for r in ROUTES if r[1].startswith("/console")])
def test_what_changes_something_needs_a_scope_for_it(method: str, path: str) -> None:
    scopes = needed(method, path)
    if scopes is None:
        assert (method, path) in PUBLIC
    elif method != "GET":
        assert scopes <= CHANGING


@pytest.mark.parametrize(("method", "path"), [r for r in ROUTES if not r[1].startswith("/console")])
def test_the_apis_need_the_scope_turns(
    served: Served, keys: dict[Scope, str], method: str, path: str
) -> None:
    for scope, key in keys.items():
        with served.http(key) as http:
            answer = http.request(method, filled(path))
        opened = needed(method, path) is None or scope is Scope.TURNS
        if opened:
            assert answer.status_code not in (401, 403), scope
        else:
            assert answer.status_code == 403, scope
            assert answer.json()["error"]["code"] == "scope_needed"


@pytest.mark.parametrize(("method", "path"), [r for r in ROUTES if r[1].startswith("/console")])
def test_the_console_needs_the_scopes_of_its_routes(
    served: Served, browsers: dict[Scope, Browser], method: str, path: str
) -> None:
    scopes = needed(method, path)
    if path == "/console/sign-out":
        return  # It would end the sessions of the other tests.
    for scope, browser in browsers.items():
        headers = {"origin": browser.url}
        answer = browser.http.request(method, filled(path), headers=headers)
        if scopes is None:
            assert answer.status_code in (200, 400, 404), scope
        elif scope is Scope.TURNS:
            assert answer.status_code == 303, scope
            assert answer.headers["location"].startswith("/console/sign-in?")
        elif scopes & allowed_by({scope}):
            assert answer.status_code not in (303, 401) or "sign-in" not in answer.headers.get(
                "location", ""
            )
            assert "scope_needed" not in answer.text, scope
        else:
            assert answer.status_code == 403, scope
            assert "scope_needed" in answer.text
    nobody = Browser(served.url)
    answer = nobody.http.request(method, filled(path), headers={"origin": nobody.url})
    if scopes is not None:
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/console/sign-in?")
    nobody.close()


def test_a_key_of_the_console_does_not_open_the_apis_and_the_other_way_round(
    served: Served, keys: dict[Scope, str]
) -> None:
    both = new_key(served.stack.settings, "acme", {Scope.TURNS, Scope.READ})[1]
    with served.http(both) as http:
        assert http.get("/turns").status_code == 200
    browser = Browser(served.url)
    assert browser.sign_in(both).status_code == 303
    assert browser.get("/console/turns").status_code == 200
    # The cookie of a session opens no API, wherever the browser sends it.
    assert browser.http.get("/turns").status_code == 401
    # Nor does a key in a header open the console.
    with served.http(both) as http:
        assert http.get("/console").status_code == 303
    browser.close()
