"""Lists, bulk changes and ends over the native API."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import Any

import httpx2
import pytest

from agentapi.redis.connection import connect
from tests.faults import until
from tests.gateway.conftest import Served
from tests.gateway.test_native import ended

AGENT: dict[str, Any] = {"agent": "tools", "message": "hi"}


def say(http: httpx2.Client, conversation: str, **body: Any) -> str:
    answer = http.post(f"/conversations/{conversation}/turns", json={**AGENT, **body})
    turn_id: str = answer.json()["turn_id"]
    return turn_id


def everything(http: httpx2.Client, path: str, name: str, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        answer = http.get(path, params={**params, **more})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page[name]
        cursor = page["next"]
        if cursor is None:
            return found


def test_turns(http: httpx2.Client) -> None:
    ids = [say(http, f"l:{n}", user_id="list-ann") for n in range(3)]
    for turn_id in ids:
        ended(http, turn_id)
    failed = ended(http, say(http, "l:f", agent="faulty", user_id="list-ann"))
    turns = everything(http, "/turns", "turns", user="list-ann", limit=2)
    assert [turn["turn_id"] for turn in turns] == [failed["turn_id"], *reversed(ids)]
    assert {turn["conversation_id"] for turn in turns} == {"l:0", "l:1", "l:2", "l:f"}
    assert (turns[0]["status"], turns[0]["error"]) == ("failed", failed["error"])
    assert "input" not in turns[0]

    def listed(**params: Any) -> list[str]:
        found = everything(http, "/turns", "turns", user="list-ann", **params)
        return [turn["turn_id"] for turn in found]

    assert listed(status="failed") == listed(agent="faulty") == [failed["turn_id"]]
    assert listed(error_code=failed["error"]["code"]) == [failed["turn_id"]]
    assert listed(error="ZERODIVISION") == [failed["turn_id"]]
    assert listed(status=["failed", "completed"]) == [failed["turn_id"], *reversed(ids)]
    assert listed(conversation="l:1") == [ids[1]]
    assert listed(since=time.time() + 60) == listed(until=1) == []


def test_conversations(served: Served, http: httpx2.Client) -> None:
    http.post("/v1/conversations", json={"metadata": {"topic": "lists"}})
    ended(http, say(http, "l:c", user_id="list-bob"))
    [found] = everything(http, "/conversations", "conversations", user="list-bob")
    assert (found["conversation_id"], found["agent"], found["messages"]) == ("l:c", "tools", 2)
    assert (found["turns"], found["open_turns"], found["archived"]) == (1, 0, False)
    with closing(connect(served.stack.settings)) as client:
        [key] = client.keys("agentapi:{*}:c:*l:c:meta")
        client.hset(key, "archived", f"{'0' * 32} 2")
        [found] = everything(http, "/conversations", "conversations", user="list-bob")
        assert (found["archived"], found["messages"]) == (True, 2)
        client.hdel(key, "archived")
    idle = everything(http, "/conversations", "conversations", busy=False)
    assert {"topic": "lists"} in [each["metadata"] for each in idle]


def test_approvals_also_those_of_delegated_turns(http: httpx2.Client) -> None:
    own = say(http, "l:a", message='/sign {"paper": "own"}')
    parent = say(http, "l:b", message='/fan_out {"messages": ["/sign {\\"paper\\": \\"child\\"}"]}')

    def waiting() -> dict[str, dict[str, Any]]:
        calls = everything(http, "/approvals", "calls")
        return {call["arguments"]["paper"]: call for call in calls}

    until(lambda: waiting().keys() >= {"own", "child"})
    calls = waiting()
    assert (calls["own"]["decide_at"], calls["own"]["turn_id"]) == (own, own)
    assert calls["child"]["decide_at"] == parent != calls["child"]["turn_id"]
    for call in calls.values():
        url = f"/turns/{call['decide_at']}/calls/{call['call_id']}"
        assert http.post(url, json={"verdict": "approved"}).status_code == 200
    assert ended(http, own)["status"] == ended(http, parent)["status"] == "completed"
    assert everything(http, "/approvals", "calls", conversation="l:a") == []


def test_another_tenant_sees_none_of_it(served: Served, http: httpx2.Client) -> None:
    turn_id = say(http, "l:t", message='/sign {"paper": "secret"}')
    until(lambda: http.get(f"/turns/{turn_id}").json()["status"] == "parked")
    with served.http(served.evil) as evil:
        assert turn_id not in [t["turn_id"] for t in everything(evil, "/turns", "turns")]
        assert everything(evil, "/turns", "turns", conversation="l:t") == []
        names = [c["conversation_id"] for c in everything(evil, "/conversations", "conversations")]
        assert "l:t" not in names
        assert everything(evil, "/approvals", "calls") == []
        # Other tests have ended turns of this tenant.
        ends = evil.get("/ends", params={"after": "start", "limit": 1000}).json()["ends"]
        assert not [end for end in ends if end["conversation_id"].startswith("l:")]
        changed = evil.post("/turns/cancel", json={"since": 0}).json()
        assert (changed["turn_ids"], changed["more"]) == ([], False)
    assert http.get(f"/turns/{turn_id}").json()["status"] == "parked"
    http.post(f"/turns/{turn_id}/cancel")


def test_many_turns_are_cancelled_and_retried(http: httpx2.Client) -> None:
    asks = [say(http, f"l:x{n}", message='/sign {"paper": "x"}', user_id="eve") for n in range(3)]
    until(lambda: len(everything(http, "/turns", "turns", user="eve", status="parked")) == 3)
    body: dict[str, Any] = {"user": "eve", "limit": 2}
    dry = http.post("/turns/cancel", json={**body, "dry_run": True}).json()
    assert (set(dry["turn_ids"]) < set(asks), len(dry["turn_ids"])) == (True, 2)
    assert (dry["dry_run"], dry["more"]) == (True, True)
    assert len(everything(http, "/turns", "turns", user="eve", status="parked")) == 3
    cancelled: list[str] = []
    more = True
    while more:
        answer = http.post("/turns/cancel", json=body).json()
        cancelled += answer["turn_ids"]
        more = answer["more"]
    assert sorted(cancelled) == sorted(asks)
    failed = ended(http, say(http, "l:y", agent="faulty", user_id="eve"))["turn_id"]
    answer = http.post("/turns/retry", json={"user": "eve", "status": ["failed"]}).json()
    assert (answer["turn_ids"], answer["refused"], answer["more"]) == ([failed], [], False)
    until(lambda: http.get(f"/turns/{failed}").json()["attempt"] == 2)
    assert ended(http, failed)["status"] == "failed"


def test_ends_in_pages_and_from_a_position(http: httpx2.Client) -> None:
    position = http.get("/ends").json()["position"]
    ids = [say(http, "l:e", user_id="list-end") for _ in range(3)]
    for turn_id in ids:
        ended(http, turn_id)
    found: list[dict[str, Any]] = []
    while len(found) < 3:
        params = {"after": position, "user": "list-end", "limit": 2, "wait": 5}
        page = http.get("/ends", params=params).json()
        found += page["ends"]
        position = page["position"]
    assert [end["turn_id"] for end in found] == ids
    assert {(end["conversation_id"], end["status"]) for end in found} == {("l:e", "completed")}
    again = http.get("/ends", params={"since": time.time() - 60, "user": "list-end"}).json()
    assert [end["id"] for end in again["ends"]] == [end["id"] for end in found]
    assert http.get("/ends", params={"after": position, "status": "failed"}).json()["ends"] == []


def test_a_request_waits_for_the_next_end(http: httpx2.Client, served: Served) -> None:
    position = http.get("/ends").json()["position"]
    pages: list[dict[str, Any]] = []

    def wait() -> None:
        params = {"after": position, "conversation": "l:w", "wait": 60}
        with served.http() as other:
            pages.append(other.get("/ends", params=params).json())

    waiting = threading.Thread(target=wait)
    waiting.start()
    turn_id = say(http, "l:w")
    waiting.join(timeout=90)
    assert [end["turn_id"] for end in pages[0]["ends"]] == [turn_id]


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/turns", {"status": "done"}),
        ("/turns", {"limit": 0}),
        ("/turns", {"cursor": "x"}),
        ("/turns", {"colour": "red"}),
        ("/conversations", {"busy": "perhaps"}),
        ("/approvals", {"limit": 1001}),
        ("/ends", {"after": "x"}),
        ("/ends", {"wait": 61}),
        ("/ends", {"status": "queued"}),
    ],
)
def test_what_is_not_valid(http: httpx2.Client, path: str, params: dict[str, Any]) -> None:
    answer = http.get(path, params=params)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_change_of_all_turns_needs_a_filter(http: httpx2.Client) -> None:
    for path in ("/turns/cancel", "/turns/retry"):
        answer = http.post(path, json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")
