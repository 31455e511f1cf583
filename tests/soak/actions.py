"""What clients do during a soak: each action is one visit, from its beginning to its end."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx2

from agentapi import Image
from agentapi.errors import TurnCancelled, TurnFailed
from orchestrator import Orchestrator, TurnHandle
from tests.faults import until

PATIENCE = 120.0
"""Seconds that a turn may take, workers lost meanwhile included."""


class Unexpected(AssertionError):
    """An action ended otherwise than it should have."""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What an action works with.

    Attributes:
        orchestrator: The producer.
        http: Clients of the gateway with the keys of its tenants; the last one's key is wrong.
        chance: Decides the details.
        number: Of the visit; some of them share a conversation, none for ever.
    """

    orchestrator: Orchestrator
    http: tuple[httpx2.Client, ...]
    chance: random.Random
    number: int

    def conversation(self, kind: str) -> str:
        """A conversation that a few visits in a row have in common."""
        return f"soak:{kind}:{self.number // 200}:{self.chance.randrange(4)}"

    def enqueue(self, message: str, kind: str = "", **options: object) -> TurnHandle:
        """A turn in a conversation of a kind, or in one of its own."""
        conversation = self.conversation(kind) if kind else f"soak:{uuid.uuid4().hex}"
        key = uuid.uuid4().hex
        return self.orchestrator.enqueue(
            "soak", message, conversation_id=conversation, idempotency_key=key,
            **options,  # type: ignore[arg-type]
        )  # fmt: skip


def tools(visit: Visit) -> None:
    """Tools, side by side, in a shared conversation that is compacted."""
    seconds = round(visit.chance.uniform(0, 0.3), 2)
    lines = [f'/nap {{"seconds": {seconds}}}', f'/think {{"seconds": {seconds}}}']
    expect(visit.enqueue("\n".join(lines), "tools"), "rested")


def faulty_tools(visit: Visit) -> None:
    """A tool that raises, one with arguments that do not fit, one with a long result."""
    lines = ["/broken", '/nap {"seconds": "soon"}', '/large {"kilobytes": 20}']
    expect(visit.enqueue("\n".join(lines), "faulty"), "out of paper")


def children(visit: Visit) -> None:
    """A turn that asks three others."""
    messages = [f'/nap {{"seconds": {visit.chance.uniform(0, 0.3):.2f}}}'] * 3
    expect(visit.enqueue(f"/fan_out {json.dumps({'messages': messages})}"), "rested")


def gather(visit: Visit) -> None:
    """Agents side by side, from the producer."""
    handle = visit.orchestrator.gather([("soak", "one"), ("soak", "two")])
    if "two" not in handle.result(timeout=PATIENCE).text:
        raise Unexpected("gather gave other replies")


def approval(visit: Visit) -> None:
    """A call that a person approves, rejects, or forgets until it expires."""
    turn = visit.enqueue('/sign {"paper": "a"}')
    choice = visit.chance.randrange(3)
    until(lambda: turn.pending() or turn.status().ended, PATIENCE, "a question")
    for call in turn.pending() if choice else ():
        if choice == 1:
            turn.approve(call.call_id, by="soak")
        else:
            turn.reject(call.call_id, "no")
    expect(turn, "sign")


def stream(visit: Visit) -> None:
    """A reply that is followed as it is produced."""
    turn = visit.enqueue("one two three four five six seven eight", "stream", stream=True)
    text = ""
    for event in turn.events(timeout=PATIENCE):
        if event.type.value == "delta":
            text += event.data["text"]
        elif event.type.value == "reset":
            text = ""
    if text != turn.result(timeout=PATIENCE).text:
        raise Unexpected("the stream's text is not the reply")


def image(visit: Visit) -> None:
    """A message with an image, sometimes cancelled before anybody saw it."""
    data = visit.chance.randbytes(30_000)
    turn = visit.orchestrator.enqueue(
        "soak",
        ["What is this?", Image(data=data, media_type="image/png")],
        conversation_id=visit.conversation("image"),
    )
    if visit.chance.randrange(3):
        expect(turn, "image")
    else:
        turn.cancel()
        ended(turn)


def reset(visit: Visit) -> None:
    """A conversation that is begun again."""
    turn = visit.enqueue("hi", "reset")
    if visit.chance.randrange(2):
        visit.orchestrator.reset(turn.conversation_id)
    expect(turn, "You said")


def cancel(visit: Visit) -> None:
    """A turn, or a tree of turns, that is cancelled."""
    nap = '/nap {"seconds": 30}'
    message = nap
    if visit.chance.randrange(2):
        message = f"/fan_out {json.dumps({'messages': [nap, nap]})}"
    turn = visit.enqueue(message)
    until(lambda: turn.info().steps > 0 or turn.status().ended, PATIENCE, "its beginning")
    turn.cancel()
    ended(turn)


def deadline(visit: Visit) -> None:
    """A turn that is too late, alone or behind another."""
    first = visit.enqueue('/nap {"seconds": 2}', "deadline", deadline=0.5, on_busy="enqueue")
    second = visit.enqueue("hi", "deadline", deadline=30, on_busy="enqueue")
    ended(first, "deadline")
    ended(second, "deadline")


def busy(visit: Visit) -> None:
    """Messages to a conversation that is at work: merged, or in the place of what is there."""
    ended(visit.enqueue('/nap {"seconds": 0.3}', "busy", on_busy="interrupt"))
    for policy in ("merge", "merge", "replace"):
        visit.enqueue('/nap {"seconds": 0.3}', "busy", on_busy=policy)
    ended(visit.enqueue("hi", "busy", on_busy="interrupt"))


def unknown(visit: Visit) -> None:
    """An agent that nobody serves."""
    turn = visit.orchestrator.enqueue("nobody", "hi", deadline=20)
    try:
        turn.result(timeout=PATIENCE)
    except TurnFailed:
        return
    raise Unexpected("an agent that is not there has answered")


def gateway_native(visit: Visit) -> None:
    """A turn over HTTP, its events, its conversation deleted."""
    http = visit.http[visit.number % 2]
    conversation = f"visit-{visit.number}"
    turn = send(http, "POST", f"/conversations/{conversation}/turns",
                {"agent": "soak", "message": '/nap {"seconds": 0.1}', "stream": True})  # fmt: skip
    with http.stream("GET", f"/turns/{turn['turn_id']}/events", timeout=PATIENCE) as answer:
        text = "".join(answer.iter_text())
    if "rested" not in text and "event: completed" not in text:
        raise Unexpected(f"a stream without an end: {text[-200:]}")
    send(http, "GET", f"/conversations/{conversation}/messages")
    send(http, "DELETE", f"/conversations/{conversation}")


def gateway_openai(visit: Visit) -> None:
    """Responses and chats as OpenAI's clients ask for them."""
    http = visit.http[visit.number % 2]
    body = {"model": "soak", "input": "one two three"}
    answer = send(http, "POST", "/v1/responses", body)
    follow = {**body, "previous_response_id": answer["id"], "stream": True}
    with http.stream("POST", "/v1/responses", json=follow, timeout=PATIENCE) as events:
        "".join(events.iter_text())
    chat = {"model": "soak", "messages": [{"role": "user", "content": "hi"}]}
    send(http, "POST", "/v1/chat/completions", chat)
    made = send(http, "POST", "/v1/conversations", {"metadata": {"soak": "yes"}})
    send(http, "GET", f"/v1/conversations/{made['id']}/items")
    send(http, "DELETE", f"/v1/conversations/{made['id']}")


def gateway_refusals(visit: Visit) -> None:
    """Requests with a wrong key, for what is not there, and that cannot be read."""
    http = visit.http[0]
    for client, path, status in (
        (visit.http[-1], "/v1/models", 401),
        (http, f"/turns/042-{uuid.uuid4().hex}", 404),
    ):
        answer = client.get(path)
        if answer.status_code not in (status, 503):
            raise Unexpected(f"{path} answers {answer.status_code} instead of {status}")
    http.post("/v1/responses", content=b"{" * 1000, headers={"content-type": "application/json"})


def abandoned_stream(visit: Visit) -> None:
    """A client that goes away in the middle of a stream."""
    http = visit.http[visit.number % 2]
    body = {"model": "soak", "input": "one two three " * 20, "stream": True}
    with http.stream("POST", "/v1/responses", json=body, timeout=PATIENCE) as answer:
        for _ in answer.iter_bytes():
            break


ACTIONS: Mapping[Callable[[Visit], None], int] = {
    tools: 20, faulty_tools: 5, children: 6, gather: 3, approval: 6, stream: 10, image: 6, reset: 5,
    cancel: 5, deadline: 3, busy: 4, unknown: 2, gateway_native: 10, gateway_openai: 6,
    gateway_refusals: 4, abandoned_stream: 3,
}  # fmt: skip
"""All actions, and how often each is taken beside the others."""


def expect(turn: TurnHandle, words: str) -> None:
    """The turn's reply has these words in it."""
    text = turn.result(timeout=PATIENCE).text
    if words not in text:
        raise Unexpected(f"turn {turn.turn_id} replied without {words!r}: {text[:200]}")


def ended(turn: TurnHandle, *codes: str) -> None:
    """The turn ends: with a reply, cancelled, or failed with one of these codes."""
    try:
        turn.result(timeout=PATIENCE)
    except TurnCancelled:
        pass
    except TurnFailed as failure:
        if failure.error_code not in codes:
            raise


def send(http: httpx2.Client, method: str, path: str, body: object = None) -> dict[str, str]:
    """A request that is answered with JSON.

    Raises:
        httpx2.HTTPStatusError: It is refused.
    """
    answer = http.request(method, path, json=body, timeout=PATIENCE)
    answer.raise_for_status()
    found: dict[str, str] = answer.json()
    return found
