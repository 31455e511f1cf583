"""What clients see of a turn that waits for its provider."""

from __future__ import annotations

import time
from typing import Any

import httpx2

BUSY = {"agent": "busy", "message": "a secret plan"}


def parked(http: httpx2.Client, turn_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while True:
        turn: dict[str, Any] = http.get(f"/turns/{turn_id}").json()
        if turn["status"] == "parked":
            return turn
        assert time.monotonic() < deadline, turn
        time.sleep(0.05)


def lines_until(stream: httpx2.Response, word: str) -> list[str]:
    found = []
    for line in stream.iter_lines():
        found.append(line)
        if word in line:
            return found
    raise AssertionError(found)


def test_a_turn_that_waits_says_for_what(http: httpx2.Client) -> None:
    created = http.post("/conversations/w:1/turns", json=BUSY)
    turn_id = created.json()["turn_id"]
    turn = parked(http, turn_id)
    waits = turn["waiting_for"]
    assert (waits["kind"], waits["names"]) == ("provider", ["busy"])
    assert 40 < waits["next_try_at"] - time.time() < 80
    with http.stream("GET", f"/turns/{turn_id}/events") as stream:
        *_, told = lines_until(stream, '"waits_for":"busy"')
    assert "secret" not in told
    ended = http.post(f"/turns/{turn_id}/cancel").json()
    assert (ended["status"], ended["waiting_for"]) == ("cancelled", None)


def test_openais_streams_say_it_in_a_comment(http: httpx2.Client) -> None:
    asked = {"model": "busy", "stream": True}
    for path, body in (
        ("/v1/responses", {**asked, "input": "a secret plan"}),
        ("/v1/chat/completions", {**asked, "messages": [{"role": "user", "content": "secret"}]}),
    ):
        with http.stream("POST", path, json=body) as stream:
            *_, told = lines_until(stream, "waiting for busy")
        assert told.startswith(": waiting for busy, next try in ")
        assert "secret" not in told


def test_a_deadline_over_http(http: httpx2.Client) -> None:
    body = {**BUSY, "deadline": 8}
    turn_id = http.post("/conversations/w:2/turns", json=body).json()["turn_id"]
    parked(http, turn_id)
    deadline = time.monotonic() + 90
    while (turn := http.get(f"/turns/{turn_id}").json())["status"] == "parked":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (turn["status"], turn["error"]["code"]) == ("failed", "deadline")
    for wrong in (0, -1, "soon"):
        refused = http.post("/conversations/w:2/turns", json={**BUSY, "deadline": wrong})
        assert refused.status_code in (400, 422)
