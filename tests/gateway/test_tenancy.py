"""Another tenant's objects return 404, on every route of the document."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import Served

BODIES: dict[str, dict[str, Any]] = {
    "/v1/conversations/{conversation}": {"metadata": {"stolen": "yes"}},
    "/turns/{turn_id}/calls/{call_id}": {"verdict": "approved"},
    "/turns/{turn_id}/fork": {},
    "/turns/{turn_id}/calls/{call_id}/output": {"output": "planted"},
    "/v1/conversations/{conversation}/items": {
        "items": [{"type": "message", "role": "user", "content": "planted"}]
    },
    "/v1/chat/completions/{completion}": {"metadata": {"mine": "no"}},
}


@pytest.fixture(scope="module")
def belongings(served: Served) -> dict[str, str]:
    """Acme's ids, by the names of path parameters."""
    with served.http() as http:
        made = http.post("/v1/conversations", json={"metadata": {"mine": "yes"}}).json()
        body = {
            "model": "tools",
            "input": "private",
            "conversation": made["id"],
            "background": True,
        }
        response = http.post("/v1/responses", json=body).json()
        waited = {"model": "tools", "input": "more", "conversation": made["id"]}
        assert http.post("/v1/responses", json=waited).json()["status"] == "completed"
        items = http.get(f"/v1/conversations/{made['id']}/items").json()["data"]
        asked = {"model": "tools", "messages": [{"role": "user", "content": "x"}], "store": True}
        completion = http.post("/v1/chat/completions", json=asked).json()
    digits = response["id"].removeprefix("resp_")
    return {
        "conversation": made["id"],
        "conversation_id": made["id"],
        "response": response["id"],
        "completion": completion["id"],
        "turn_id": f"{digits[:3]}-{digits[3:]}",
        "item": items[0]["id"],
        "call_id": "call_1",
    }


def routes(http: httpx2.Client) -> list[tuple[str, str]]:
    """Every operation whose path names something that belongs to a tenant."""
    document = http.get("/openapi.json").json()
    return [
        (method, path)
        for path, operations in document["paths"].items()
        for method in operations
        if "{" in path and "{model}" not in path
    ]


def test_every_route_with_another_tenants_key(served: Served, belongings: dict[str, str]) -> None:
    tried = 0
    with served.http(served.evil) as evil, served.http() as acme:
        before = snapshot(acme, belongings)
        for method, path in routes(evil):
            if (method, path) == ("post", "/conversations/{conversation_id}/turns"):
                continue  # it begins the tenant's own conversation of that name, see below
            url = path.format(**belongings)
            answer = evil.request(method, url, json=BODIES.get(path))
            assert answer.status_code == 404, (method, path, answer.text)
            assert "private" not in answer.text
            tried += 1
            nothing = path.format(**{name: nowhere(value) for name, value in belongings.items()})
            never = evil.request(method, nothing, json=BODIES.get(path))
            assert never.status_code == 404, (method, path, never.text)
            assert never.json()["error"]["code"] == answer.json()["error"]["code"]
        assert snapshot(acme, belongings) == before
    assert tried >= 15


def nowhere(known: str) -> str:
    """An id of the same form that does not exist."""
    return known[:-4] + ("0000" if not known.endswith("0000") else "1111")


def snapshot(acme: httpx2.Client, belongings: dict[str, str]) -> list[Any]:
    conversation = belongings["conversation"]
    return [
        acme.get(f"/v1/conversations/{conversation}").json(),
        acme.get(f"/v1/conversations/{conversation}/items").json(),
        acme.get(f"/v1/responses/{belongings['response']}").json(),
    ]


def test_bodies_that_name_another_tenants_things(
    served: Served, belongings: dict[str, str]
) -> None:
    with served.http(served.evil) as evil:
        for named, status, never in (
            ({"conversation": belongings["conversation"]}, 404, {"conversation": "conv_never"}),
            (
                {"previous_response_id": belongings["response"]},
                400,
                {"previous_response_id": f"resp_{0:035}"},
            ),
        ):
            body = {"model": "tools", "input": "What did I say?"}
            answer = evil.post("/v1/responses", json={**body, **named})
            assert answer.status_code == status, answer.text
            missing = evil.post("/v1/responses", json={**body, **never})
            assert (missing.status_code, missing.json()["error"]["code"]) == (
                status,
                answer.json()["error"]["code"],
            )


def test_the_same_name_is_another_conversation(served: Served) -> None:
    with served.http(served.evil) as evil, served.http() as acme:
        headers = {"Idempotency-Key": "same"}
        turns = []
        for http, said in ((acme, "of acme"), (evil, "of evil")):
            body = {"model": "tools", "input": said}
            native = {"agent": "tools", "message": said}
            turns.append(http.post("/conversations/shared/turns", json=native, headers=headers))
            reply = http.post("/v1/responses", json=body, headers=headers).json()
            assert reply["output"][0]["content"][0]["text"] == f"You said: {said}"
        assert turns[0].json()["turn_id"] != turns[1].json()["turn_id"]
        history = evil.get("/conversations/shared/messages").text
        assert "of acme" not in history
        chat = {
            "model": "tools",
            "messages": [{"role": "user", "content": "What did I say?"}],
            "metadata": {"conversation_id": "shared"},
        }
        told = evil.post("/v1/chat/completions", json=chat).json()
        assert told["choices"][0]["message"]["content"] == "You said 1 thing: of evil"


def test_every_route_without_a_key(served: Served, belongings: dict[str, str]) -> None:
    with httpx2.Client(base_url=served.url, timeout=150) as nobody:
        document = nobody.get("/openapi.json").json()
        for path, operations in document["paths"].items():
            if path in ("/", "/healthz", "/readyz"):
                continue
            for method in operations:
                url = path.format(**belongings, model="tools")
                answer = nobody.request(method, url, json=BODIES.get(path))
                assert answer.status_code in (400, 401), (method, path)
                if answer.status_code == 400:
                    # The body is checked before the object; nothing but its form was looked at.
                    assert method == "post"


@pytest.mark.parametrize("agent", ["agentapi.compact", "agentapi.gather", "agentapi.chain"])
def test_the_runtimes_own_agents_are_no_models(served: Served, agent: str) -> None:
    """One of them reads and writes whatever conversation its turn is beside."""
    task = '{"v": 1, "conversation": "gw:acme:private", "agent": "tools", "generation": 0}'
    with served.http(served.evil) as evil:
        for url, body in (
            ("/v1/responses", {"model": agent, "input": task}),
            ("/v1/chat/completions", {"model": agent, "messages": [said(task)]}),
            ("/conversations/c/turns", {"agent": agent, "message": task}),
        ):
            answer = evil.post(url, json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert evil.get(f"/v1/models/{agent}").status_code == 404


def said(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
