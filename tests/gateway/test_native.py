"""The native API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai

from tests.faults import until
from tests.gateway.conftest import Served


def read_events(answer: httpx2.Response) -> Iterator[dict[str, Any]]:
    """Events as an EventSource reads them: id, type, data."""
    event: dict[str, Any] = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif name == "data":
            event["data"] = json.loads(value)
        elif name:
            event[name] = value


def events_of(http: httpx2.Client, turn_id: str, **headers: str) -> list[dict[str, Any]]:
    with http.stream("GET", f"/turns/{turn_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        return list(read_events(answer))


def ended(http: httpx2.Client, turn_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while True:
        turn: dict[str, Any] = http.get(f"/turns/{turn_id}").json()
        if turn["status"] in ("completed", "failed", "cancelled"):
            return turn
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_turn(http: httpx2.Client) -> None:
    body = {"agent": "tools", "message": "hi", "user_id": "ada", "metadata": {"order": [7]}}
    answer = http.post("/conversations/n:1/turns", json=body)
    assert answer.status_code == 202
    accepted = answer.json()
    assert accepted["conversation_id"] == "n:1"
    assert accepted["status"] in ("queued", "running", "completed")
    assert answer.headers["location"] == f"/turns/{accepted['turn_id']}"
    turn = ended(http, accepted["turn_id"])
    assert (turn["status"], turn["text"], turn["input"]) == ("completed", "You said: hi", "hi")
    assert (turn["user_id"], turn["metadata"]) == ("ada", {"order": [7]})


def test_a_turn_with_a_context(http: httpx2.Client) -> None:
    context = {"name": "Ann", "age": 7}
    body = {"agent": "shop", "message": "/who", "metadata": {"order": 7}, "context": context}
    accepted = http.post("/conversations/n:ctx/turns", json=body)
    assert accepted.status_code == 202
    turn = ended(http, accepted.json()["turn_id"])
    assert turn["context"] == context
    # The gateway's own labels, which it keeps in the metadata, are not shown to tools.
    assert turn["text"] == "who: Ann {'order': 7}"
    key = {"idempotency-key": "ctx"}
    first = http.post("/conversations/n:ctx/turns", json=body, headers=key).json()
    again = http.post("/conversations/n:ctx/turns", json=body, headers=key)
    assert again.json()["turn_id"] == first["turn_id"]
    other = {**body, "context": {"name": "Bob"}}
    assert http.post("/conversations/n:ctx/turns", json=other, headers=key).status_code == 422


def test_a_context_that_cannot_be_stored_is_refused(http: httpx2.Client) -> None:
    for context, why in (
        ({"name": "x" * 70_000}, "expected a JSON object of at most 65536 bytes"),
        ("text", "context"),
    ):
        body = {"agent": "shop", "message": "hi", "context": context}
        answer = http.post("/conversations/n:bad/turns", json=body)
        assert answer.status_code in (400, 422), answer.text
        assert why in answer.text
    assert http.get("/conversations/n:bad/messages").status_code == 404


def test_a_context_that_does_not_match_fails_the_turn(http: httpx2.Client) -> None:
    """This gateway knows the agents' names only."""
    body = {"agent": "shop", "message": "hi", "context": {"age": "old"}}
    answer = http.post("/conversations/n:old/turns", json=body)
    turn = ended(http, answer.json()["turn_id"])
    assert (turn["status"], turn["error"]["code"]) == ("failed", "invalid_context")
    assert "age: Input should be a valid integer" in turn["error"]["message"]


def test_the_same_key_is_the_same_turn(http: httpx2.Client) -> None:
    body = {"agent": "tools", "message": "hi"}
    made = [
        http.post(
            "/conversations/n:2/turns", json=body, headers={"Idempotency-Key": "order-7"}
        ).json()["turn_id"]
        for _ in range(2)
    ]
    other = http.post("/conversations/n:2/turns", json=body).json()["turn_id"]
    assert made[0] == made[1] != other


def test_a_key_is_of_one_request(http: httpx2.Client) -> None:
    """A key that is reused by mistake must not answer another question."""
    chat: dict[str, Any] = {"model": "tools", "messages": [{"role": "user", "content": "hi"}]}
    native = "/conversations/n:key/turns"
    requests: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (native, {"agent": "tools", "message": "hi"}, {"message": "other"}),
        (native, {"agent": "tools", "message": "hi"}, {"metadata": {"a": 1}}),
        ("/v1/responses", {"model": "tools", "input": "hi"}, {"input": "other"}),
        ("/v1/chat/completions", chat, {"messages": [{"role": "user", "content": "other"}]}),
    ]
    for number, (url, body, change) in enumerate(requests):
        headers = {"Idempotency-Key": f"key {number}"}
        first = http.post(url, json=body, headers=headers)
        assert first.is_success
        for _ in range(2):
            other = http.post(url, json={**body, **change}, headers=headers)
            assert other.status_code == 422
            error = other.json()["error"]
            assert (error["code"], error["param"]) == ("idempotency_key_reused", "Idempotency-Key")
            assert other.headers["x-should-retry"] == "false"
        # The order of keys does not matter.
        again = http.post(url, json=dict(reversed(body.items())), headers=headers)
        for name in ("turn_id", "id"):
            assert again.json().get(name) == first.json().get(name)


def test_events_resume(http: httpx2.Client) -> None:
    body = {"agent": "slow", "message": "one two three four", "stream": True}
    turn_id = http.post("/conversations/n:3/turns", json=body).json()["turn_id"]
    seen: list[dict[str, Any]] = []
    with http.stream("GET", f"/turns/{turn_id}/events") as answer:
        for event in read_events(answer):
            seen.append(event)
            if event["event"] == "delta":
                break
    seen += events_of(http, turn_id, **{"Last-Event-ID": seen[-1]["id"]})
    assert [int(event["id"]) for event in seen] == list(range(len(seen)))
    assert [event["data"]["number"] for event in seen] == list(range(len(seen)))
    text = "".join(event["data"].get("text", "") for event in seen)
    assert text == "You said: one two three four"
    assert seen[-1]["event"] == "completed"
    assert events_of(http, turn_id) == seen
    done = http.get(f"/turns/{turn_id}/events", headers={"Last-Event-ID": seen[-1]["id"]})
    assert done.status_code == 204
    assert http.get(f"/turns/{turn_id}/events?after={seen[-1]['id']}").status_code == 204
    wrong = http.get(f"/turns/{turn_id}/events", headers={"Last-Event-ID": "x"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "Last-Event-ID")


def test_cancel(http: httpx2.Client) -> None:
    body = {"agent": "tools", "message": '/nap {"seconds": 600}'}
    turn_id = http.post("/conversations/n:4/turns", json=body).json()["turn_id"]
    assert http.post(f"/turns/{turn_id}/cancel").status_code == 200
    assert ended(http, turn_id)["status"] == "cancelled"
    assert http.post(f"/turns/{turn_id}/cancel").json()["status"] == "cancelled"
    assert events_of(http, turn_id)[-1]["event"] == "cancelled"


def test_a_busy_conversation(http: httpx2.Client) -> None:
    def say(message: str, **policy: str) -> httpx2.Response:
        body = {"agent": "tools", "message": message, **policy}
        return http.post("/conversations/n:busy/turns", json=body)

    running = say('/nap {"seconds": 600}').json()["turn_id"]
    # A turn that no worker has begun leaves nothing in the history.
    until(lambda: http.get(f"/turns/{running}").json()["status"] == "running")
    refused = say("hi", on_busy="reject")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conversation_busy")
    waiting = say("one", on_abort="drop").json()["turn_id"]
    assert say("two", on_busy="merge", on_abort="drop").json()["turn_id"] == waiting
    newest = say("stop", on_busy="interrupt").json()["turn_id"]
    assert ended(http, running)["status"] == "cancelled"
    assert ended(http, waiting)["input"] == "one\n\ntwo"
    assert ended(http, newest)["text"] == "You said: stop"
    kept = http.get("/conversations/n:busy/messages").json()["messages"]
    assert kept[0]["content"].startswith("/nap")
    assert say("x", on_busy="perhaps").status_code == 400


def test_messages_in_pages_and_their_end(http: httpx2.Client) -> None:
    for number in range(3):
        body = {"agent": "tools", "message": str(number)}
        turn_id = http.post("/conversations/n:5/turns", json=body).json()["turn_id"]
        ended(http, turn_id)
    found: list[str] = []
    after: int | None = -1
    while after is not None:
        page = http.get(f"/conversations/n:5/messages?limit=4&after={after}").json()
        found += [message["content"] for message in page["messages"]]
        after = page["next"]
    assert found == ["0", "You said: 0", "1", "You said: 1", "2", "You said: 2"]
    assert http.delete("/conversations/n:5").json() == {"conversation_id": "n:5", "deleted": True}
    assert http.get("/conversations/n:5/messages").status_code == 404
    assert http.get(f"/turns/{turn_id}").status_code == 404
    assert http.delete("/conversations/n:5").status_code == 404


def test_events_are_kept_for_a_while_only(http: httpx2.Client, served: Served) -> None:
    import redis

    body = {"agent": "tools", "message": "hi"}
    turn_id = http.post("/conversations/n:6/turns", json=body).json()["turn_id"]
    ended(http, turn_id)
    client = redis.Redis.from_url(served.stack.redis_url)
    [events] = client.keys(f"agentapi:*{turn_id}:events")
    client.delete(events)
    client.close()
    gone = http.get(f"/turns/{turn_id}/events")
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "events_expired")
    response = f"resp_{turn_id.replace('-', '')}"
    assert http.get(f"/v1/responses/{response}").json()["status"] == "completed"
    assert http.get(f"/v1/responses/{response}?stream=true").status_code == 410


def test_ids_that_are_not_valid(http: httpx2.Client) -> None:
    body = {"agent": "tools", "message": "hi"}
    for conversation in ("x" * 257, "a%0Ab"):
        answer = http.post(f"/conversations/{conversation}/turns", json=body)
        assert answer.json()["error"]["code"] == "invalid_conversation_id"
        assert answer.status_code == 400
    assert http.get("/turns/nonsense").status_code == 404


def test_health(http: httpx2.Client) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    # A busy worker may miss a question.
    until(lambda: http.get("/readyz").status_code == 200)
    found = http.get("/readyz").json()
    background = found.pop("background")
    assert found.pop("sweeper") in ("ok", "unknown")
    assert found == {
        "ready": True,
        "redis": "ok",
        "broker": "ok",
        "workers": 1,
        "follower": "ok",
    }
    assert {"agentapi-follower", "gateway-audit"} <= {b["name"] for b in background}
    assert all(work["running"] and work["failures"] == 0 for work in background)


def test_a_turn_goes_by_the_ids_of_openais_api_too(
    http: httpx2.Client, client: openai.OpenAI
) -> None:
    made = client.responses.create(model="tools", input="hi")
    chat = client.chat.completions.create(
        model="tools", messages=[{"role": "user", "content": "hi"}]
    )
    for given in (made.id, chat.id):
        turn = http.get(f"/turns/{given}").json()
        assert turn == http.get(f"/turns/{turn['turn_id']}").json()
        assert turn["text"] == "You said: hi"
        assert http.get(f"/turns/{given}/calls").json()["calls"] == []
        assert http.get(f"/turns/{given}/events").status_code == 200
    assert http.get("/turns/resp_none").status_code == 404
