"""Approvals over the native API."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.faults import until
from tests.gateway.test_native import ended, events_of


def waiting(http: httpx2.Client, message: str) -> tuple[str, list[dict[str, Any]]]:
    body = {"agent": "tools", "message": message}
    turn_id: str = http.post("/conversations/approvals/turns", json=body).json()["turn_id"]
    until(lambda: http.get(f"/turns/{turn_id}/calls").json()["calls"])
    return turn_id, http.get(f"/turns/{turn_id}/calls").json()["calls"]


def test_a_call_is_approved(http: httpx2.Client) -> None:
    turn_id, [call] = waiting(http, '/sign {"paper": "a"}')
    assert (call["tool"], call["arguments"]) == ("sign", {"paper": "a"})
    assert (call["expires_at"], call["default"]) == (None, "rejected")
    assert http.get(f"/turns/{turn_id}").json()["status"] == "parked"
    url = f"/turns/{turn_id}/calls/{call['call_id']}"
    for _ in range(2):
        answer = http.post(url, json={"verdict": "approved", "by": "ann"})
        assert answer.status_code in (200, 409)
    assert ended(http, turn_id)["text"] == "sign: signed a"
    assert http.get(f"/turns/{turn_id}/calls").json()["calls"] == []
    decided = [e["data"] for e in events_of(http, turn_id) if e["event"] == "decided"]
    assert [(d["call"], d["verdict"]) for d in decided] == [(call["call_id"], "approved")]


def test_a_call_is_approved_with_other_arguments(http: httpx2.Client) -> None:
    turn_id, [call] = waiting(http, '/sign {"paper": "d"}')
    url = f"/turns/{turn_id}/calls/{call['call_id']}"
    wrong = http.post(url, json={"verdict": "approved", "arguments": {"paper": 7}})
    assert wrong.status_code == 400, wrong.text
    assert "paper" in wrong.json()["error"]["message"]
    mixed = http.post(url, json={"verdict": "rejected", "arguments": {"paper": "a"}})
    assert mixed.status_code == 400, mixed.text
    edited = {"verdict": "approved", "arguments": {"paper": "the other form"}, "by": "ann"}
    assert http.post(url, json=edited).status_code == 200
    assert "signed the other form" in ended(http, turn_id)["text"]


def test_a_call_is_rejected_and_the_decision_is_final(http: httpx2.Client) -> None:
    turn_id, [call] = waiting(http, '/sign {"paper": "b"}')
    url = f"/turns/{turn_id}/calls/{call['call_id']}"
    answer = http.post(url, json={"verdict": "rejected", "reason": "no ink"})
    assert answer.status_code == 200
    assert "no ink" in ended(http, turn_id)["text"]
    answer = http.post(url, json={"verdict": "approved"})
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "call_not_pending"


def test_what_is_no_decision(http: httpx2.Client) -> None:
    turn_id, [call] = waiting(http, '/sign {"paper": "c"}')
    url = f"/turns/{turn_id}/calls/{call['call_id']}"
    assert http.post(url, json={"verdict": "maybe"}).status_code == 400
    assert http.post(f"/turns/{turn_id}/calls/x", json={"verdict": "approved"}).status_code == 409
    http.post(f"/turns/{turn_id}/cancel")
    assert http.post(url, json={"verdict": "approved"}).status_code == 409
