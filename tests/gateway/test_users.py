"""A person's data are deleted over HTTP, of one tenant only."""

from __future__ import annotations

import httpx2

from orchestrator.gateway.tenants.scopes import Scope
from tests.gateway.conftest import Served
from tests.gateway.console import new_key


def said(http: httpx2.Client, conversation: str, user: str) -> str:
    turn = http.post(
        f"/conversations/{conversation}/turns",
        json={"agent": "open", "message": "hello", "user_id": user},
    )
    assert turn.status_code == 202, turn.text
    turn_id: str = turn.json()["turn_id"]
    with http.stream("GET", f"/turns/{turn_id}/events") as events:
        events.read()
    return turn_id


def test_a_user_is_forgotten_by_the_own_tenant_only(served: Served) -> None:
    with served.http() as acme, served.http(served.evil) as evil:
        mine, other = said(acme, "u:1", "anna"), said(acme, "u:2", "bob")
        nothing = {"conversations": 0, "turns": 0, "messages": 0, "left": [], "dry_run": False}
        assert evil.post("/users/forget", json={"user": "anna"}).json() == nothing
        found = acme.post("/users/forget", json={"user": "anna", "dry_run": True}).json()
        assert found == {**nothing, "conversations": 1, "turns": 1, "messages": 2, "dry_run": True}
        assert acme.get(f"/turns/{mine}").status_code == 200
        done = acme.post("/users/forget", json={"user": "anna"}).json()
        assert done == {**found, "dry_run": False}
        assert acme.get(f"/turns/{mine}").status_code == 404
        assert acme.get("/conversations/u:1/messages").status_code == 404
        assert acme.get(f"/turns/{other}").status_code == 200
        assert acme.post("/users/forget", json={"user": "anna"}).json() == nothing
        assert acme.post("/users/forget", json={"user": ""}).status_code in (400, 422)


def test_a_user_is_forgotten_with_a_key_for_the_apis_only(served: Served) -> None:
    everything = {Scope.READ, Scope.CONTENT, Scope.OPERATE}
    operator = new_key(served.stack.settings, "acme", everything)[1]
    with served.http() as acme, served.http(operator) as console:
        mine = said(acme, "u:4", "dora")
        refused = console.post("/users/forget", json={"user": "dora"})
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "scope_needed"
        assert acme.get(f"/turns/{mine}").status_code == 200


def test_a_record_that_stayed_after_a_conflict_goes_with_the_conversation(served: Served) -> None:
    with served.http() as acme:
        said(acme, "u:3", "carl")
        turn = acme.post(
            "/conversations/u:3/turns", json={"agent": "open", "message": "again"}
        ).json()["turn_id"]
        acme.post(f"/turns/{turn}/cancel")
        with acme.stream("GET", f"/turns/{turn}/events") as events:
            events.read()
        assert acme.delete("/conversations/u:3").status_code == 200
        assert acme.get(f"/turns/{turn}").status_code == 404
