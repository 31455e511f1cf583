"""Providers, tools and hooks that do what nobody expected: their turn ends, the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from agentapi import Agent, tool
from agentapi.agents.hooks import Hooks
from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.providers import ModelRequest, ModelResponse, StreamPart, TextDelta, providers
from agentapi.providers.base import FinishReason
from agentapi.stores import Ending, Lease, Wakeup
from agentapi.turns import EventType, Turn, TurnStatus
from tests.integration.fleet import Fleet

MakeFleet = Callable[..., Fleet]
HIGH, LOW, SMILE = "\ud83d", "\ude00", "\U0001f600"


class Panic(BaseException):
    """Like the panics of extensions written in Rust: not an Exception."""


class Odd:
    """A provider that answers as it is told, or raises."""

    name = "odd"
    default_model = "odd-1"

    def __init__(self) -> None:
        self.answer: AssistantMessage | BaseException = AssistantMessage(content="fine")
        self.pieces: tuple[str, ...] = ()

    async def complete(self, request: ModelRequest) -> ModelResponse:
        if isinstance(self.answer, BaseException):
            raise self.answer
        calls = self.answer.tool_calls and len(request.messages) == 1
        message = (
            self.answer if calls or not self.answer.tool_calls else AssistantMessage(content="")
        )
        finish = FinishReason.TOOL_CALLS if calls else FinishReason.STOP
        return ModelResponse(message=message, usage=Usage(input_tokens=1), finish=finish)

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        for piece in self.pieces:
            yield TextDelta(text=piece)
        yield await self.complete(request)

    async def aclose(self) -> None:
        """Nothing to close."""


@pytest.fixture
def odd() -> Iterator[Odd]:
    made = Odd()
    with providers.replaced("odd", lambda: made):
        yield made


@tool
def strange(n: float) -> Any:
    """Give what JSON cannot say."""
    return {"text": HIGH + LOW, "half": HIGH, "number": 10**30}


@tool
def raises(n: float) -> str:
    """Raise."""
    raise ValueError(f"half of {HIGH}")


@tool
def huge(n: float) -> str:
    """Give too much."""
    return "x" * 5_000


def agent(*hooks: Hooks, name: str = "odd") -> Agent:
    return Agent(name=name, provider="odd", tools=[strange, raises, huge], hooks=list(hooks))


def fine(fleet: Fleet) -> bool:
    """Whether the worker still carries out an innocent turn."""
    turn = fleet.enqueue("napper", "hi")
    return (
        bool(fleet.execute(turn)["status"] == "completed") and not fleet.app.runtime.running.all()
    )


def innocent() -> Agent:
    return Agent(name="napper", provider="offline")


def test_halves_of_characters_are_joined_and_harm_nobody(make_fleet: MakeFleet, odd: Odd) -> None:
    fleet = make_fleet(agents=[agent(), innocent()])
    odd.pieces = ("so " + HIGH, LOW + "!", " and " + HIGH)
    odd.answer = AssistantMessage(content="".join(odd.pieces))
    turn = fleet.enqueue("odd", "hi", stream=True)
    assert fleet.execute(turn)["status"] == "completed"
    assert fleet.turn(turn).text == f"so {SMILE}! and \ufffd"
    events = fleet.app.store.events({turn.turn_id: -1}, 0)[turn.turn_id]
    shown = "".join(e.data["text"] for e in events if e.type is EventType.DELTA)
    assert shown == f"so {SMILE}! and \ufffd"
    assert fine(fleet)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("strange", f'{{"text":"{SMILE}","half":"\ufffd","number":1e+30}}'),
        ("raises", "ValueError: half of \ufffd"),
        ("huge", "x" * 1000 + "\n[cut off: 5000 bytes, the limit is 1000]"),
    ],
)
def test_what_tools_give_is_told_to_the_model(
    make_fleet: MakeFleet, odd: Odd, name: str, told: str
) -> None:
    fleet = make_fleet(agents=[agent(), innocent()], max_tool_result_bytes=1000)
    call = ToolCall(id=f"c{HIGH}", name=name, arguments={"n": 1})
    odd.answer = AssistantMessage(content="", tool_calls=(call,))
    turn = fleet.enqueue("odd", "hi")
    assert fleet.execute(turn)["status"] == "completed"
    [result] = [m for m in fleet.producer.history(turn.conversation_id) if m["role"] == "tool"]
    assert result["content"] == told
    assert fine(fleet)


FAULTS = [
    RuntimeError("x"),
    Panic("x"),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("stream", [False, True])
def test_whatever_a_provider_raises_ends_its_turn(
    make_fleet: MakeFleet, odd: Odd, fault: BaseException, stream: bool
) -> None:
    fleet = make_fleet(agents=[agent(), innocent()])
    odd.answer = fault
    turn = fleet.enqueue("odd", "hi", stream=stream)
    assert fleet.execute(turn)["error"] == "internal"
    assert fleet.turn(turn).status is TurnStatus.FAILED
    assert fine(fleet)


class Raising(Hooks):
    """Raises in one of its methods."""

    def __init__(self, where: str, fault: BaseException) -> None:
        self.where = where
        self.fault = fault

    def on_turn_start(self, *_: Any) -> None:
        self._raise("on_turn_start")

    async def on_step(self, *_: Any) -> None:
        self._raise("on_step")

    def on_turn_end(self, *_: Any) -> None:
        self._raise("on_turn_end")

    def _raise(self, where: str) -> None:
        if where == self.where:
            raise self.fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("where", ["on_turn_start", "on_step", "on_turn_end"])
def test_whatever_a_hook_raises_ends_its_turn(
    make_fleet: MakeFleet, odd: Odd, fault: BaseException, where: str
) -> None:
    fleet = make_fleet(agents=[agent(Raising(where, fault)), innocent()])
    turn = fleet.enqueue("odd", "hi")
    assert fleet.execute(turn)["error"] == "hook_failed"
    assert fine(fleet)


def refuse_to_commit(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, refused: set[TurnStatus], fault: BaseException
) -> None:
    commit = fleet.app.store.commit

    def faulty(lease: Lease, ending: Ending) -> Wakeup | None:
        if ending.status in refused:
            raise fault
        return commit(lease, ending)

    monkeypatch.setattr(fleet.app.store, "commit", faulty)


@pytest.mark.parametrize("fault", [TypeError("str is not valid UTF-8"), Panic("x")])
def test_a_reply_that_cannot_be_written_fails_at_once(
    make_fleet: MakeFleet, odd: Odd, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    fleet = make_fleet(agents=[agent(), innocent()])
    turn = fleet.enqueue("odd", "hi", conversation_id="c")
    behind = fleet.enqueue("odd", "and now?", conversation_id="c")
    refuse_to_commit(fleet, monkeypatch, {TurnStatus.COMPLETED}, fault)
    assert fleet.execute(turn)["error"] == "internal"
    ended = fleet.turn(turn)
    assert ended.status is TurnStatus.FAILED
    assert (ended.attempt, ended.usage.input_tokens) == (1, 1)
    assert [wakeup.turn_id for wakeup in fleet.sent] == [behind.turn_id]
    monkeypatch.undo()
    assert fleet.execute(behind)["status"] == "completed"


def test_a_turn_whose_end_cannot_be_written_at_all_is_let_go(
    make_fleet: MakeFleet, odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet(agents=[agent(), innocent()])
    turn = fleet.enqueue("odd", "hi", conversation_id="c")
    refuse_to_commit(fleet, monkeypatch, set(TurnStatus), Panic("x"))
    assert fleet.execute(turn)["status"] == "not_ended"
    monkeypatch.undo()
    # Its lease is no longer renewed.
    assert fine(fleet)


def test_what_follows_an_end_cannot_undo_it(
    make_fleet: MakeFleet, odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet(agents=[agent(), innocent()])
    turn: Turn = fleet.enqueue("odd", "hi", conversation_id="c")

    def broken(_: object) -> None:
        raise Panic("x")

    monkeypatch.setattr(fleet.app.dispatcher, "send", broken)
    assert fleet.execute(turn)["status"] == "completed"
    assert fleet.turn(turn).status is TurnStatus.COMPLETED
