"""What tools give and raise, what they are called with, and what providers of users' own give."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar, Final

from hypothesis import strategies as st
from pydantic import BaseModel

from agentapi import Agent, ToolFailed, tool
from agentapi.conversation.messages import AssistantMessage, ToolCall, ToolMessage, Usage
from agentapi.providers import FinishReason, ModelRequest, ModelResponse
from agentapi.providers.offline import OfflineProvider
from agentapi.providers.openai.format import request_body
from agentapi.tools.base import BaseTool
from tests.fuzz.mutations import Mutation, mutations
from tests.fuzz.rig import INNOCENT, Rig
from tests.fuzz.values import CANARY


class Place(BaseModel):
    """Where."""

    name: str
    heights: list[float] = []


class _Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError(CANARY)

    __repr__ = __str__


class _Mute(Exception):
    def __str__(self) -> str:
        raise KeyError(CANARY)


class _Rust(BaseException):
    """Such as the panics of extensions in Rust."""


class _Text(str):
    __slots__ = ()


def _within_itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def _deep(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def _forever() -> Iterator[str]:
    while True:
        yield CANARY


async def _slowly() -> AsyncIterator[str]:
    for number in range(3):
        yield f"{CANARY} {number}"


async def _always() -> AsyncIterator[str]:
    while True:
        yield CANARY


def _breaks() -> Iterator[str]:
    yield CANARY
    raise ValueError(CANARY)


RESULTS: Final[Mapping[str, Callable[[], Any]]] = {
    "none": lambda: None,
    "text": lambda: CANARY,
    "subclass of text": lambda: _Text(CANARY),
    "half a character": lambda: f"{CANARY}\ud83d",
    "halves inside": lambda: {f"\ud83d{CANARY}": [f"\ude00{CANARY}"]},
    "NUL": lambda: "\x00",
    "bytes": lambda: b"\xff\xfe" + CANARY.encode(),
    "memory": lambda: memoryview(b"\xff"),
    "NaN": lambda: [math.nan, math.inf, -math.inf],
    "long integer": lambda: 10**5000,
    "decimal": lambda: Decimal("NaN"),
    "set": lambda: {CANARY, 1, None},
    "keys": lambda: {1: CANARY, (2, 3): 4, None: 5},
    "object": object,
    "unspeakable": _Unspeakable,
    "class": lambda: Place,
    "function": lambda: print,
    "module": lambda: json,
    "within itself": _within_itself,
    "deep": lambda: _deep(300),
    "deeper": lambda: _deep(100_000),
    "generator": lambda: (CANARY for _ in range(3)),
    "generator without an end": _forever,
    "generator that breaks": _breaks,
    "generator inside": lambda: {"a": (CANARY for _ in range(3))},
    "iterator": lambda: itertools.repeat(CANARY),
    "asynchronous generator": _slowly,
    "asynchronous generator without an end": _always,
    "20 MB": lambda: CANARY * 1_538_461,
    "a million items": lambda: [1] * 1_000_000,
    "exception as a result": lambda: ValueError(CANARY),
    "model": lambda: Place(name=CANARY, heights=[math.nan]),
}
"""What a tool gives."""

ERRORS: Final[Mapping[str, Callable[[], BaseException]]] = {
    "ValueError": lambda: ValueError(CANARY),
    "half a character": lambda: ValueError(f"{CANARY}\ud83d"),
    "long": lambda: ValueError(CANARY * 500_000),
    "mute": _Mute,
    "ToolFailed": lambda: ToolFailed(f"{CANARY}\udfff"),
    "unspeakable": lambda: ValueError(_Unspeakable()),
    "group": lambda: ExceptionGroup(CANARY, [ValueError(CANARY)]),
    "group of the base": lambda: BaseExceptionGroup(CANARY, [SystemExit(CANARY)]),
    "SystemExit": lambda: SystemExit(CANARY),
    "KeyboardInterrupt": lambda: KeyboardInterrupt(CANARY),
    "GeneratorExit": lambda: GeneratorExit(CANARY),
    "CancelledError": lambda: asyncio.CancelledError(CANARY),
    "StopIteration": lambda: StopIteration(CANARY),
    "StopAsyncIteration": lambda: StopAsyncIteration(CANARY),
    "RecursionError": lambda: RecursionError(CANARY),
    "MemoryError": lambda: MemoryError(CANARY),
    "TimeoutError": TimeoutError,
    "BaseException": lambda: _Rust(CANARY),
}
"""What a tool raises."""


def _do(case: str) -> Any:
    kind, _, name = case.partition(":")
    if kind == "raise":
        raise ERRORS[name]()
    return RESULTS[name]()


@tool(timeout=2)
def in_thread(case: str) -> Any:
    """Do it in a thread."""
    return _do(case)


@tool(timeout=2)
async def on_loop(case: str) -> Any:
    """Do it on the event loop."""
    return _do(case)


@tool(timeout=2)
async def generates(case: str) -> Any:
    """Generate it."""
    yield _do(case)


@tool
def typed(
    count: int, place: Place, names: list[str], day: date | None = None, ratio: float = 1.0
) -> str:
    """Take arguments of many types."""
    return f"took {count} {place} {names} {day} {ratio}"


ARGUMENTS: Final[dict[str, Any]] = {
    "count": 1,
    "place": {"name": CANARY, "heights": [1.5, 2]},
    "names": ["a", CANARY],
    "day": "2026-01-31",
    "ratio": 0.5,
}


class OddCalls(OfflineProvider):
    """Calls what it is told to, once a turn."""

    answers: ClassVar[dict[str, ModelResponse]] = {}

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`."""
        body = request_body(request)
        # As clients do before they send it.
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
        for offered in body.get("tools", ()):
            assert offered["function"]["parameters"].get("type") == "object"
        if isinstance(request.messages[-1], ToolMessage):
            return _response(AssistantMessage(content="Done."))
        said = request.messages[-1].content
        return self.answers.get(said) or await super().complete(request)


def _response(message: Any, usage: Any = None) -> ModelResponse:
    return ModelResponse(message=message, usage=usage or Usage(), finish=FinishReason.STOP)


def _calls(name: str, arguments: Any) -> ModelResponse:
    call = ToolCall(id="c1", name=name, arguments=arguments)
    return _response(AssistantMessage(content="", tool_calls=(call,)))


def _as_python(mutation: Mutation) -> Any:
    """Changed arguments as a provider that reads JSON leniently would have them."""
    try:
        return json.loads(mutation.text(ARGUMENTS).decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return mutation.document(ARGUMENTS)


def agents() -> Sequence[Agent]:
    """The victim."""
    tools: list[BaseTool] = [in_thread, on_loop, generates, typed]
    return [Agent(name="odd-tools", provider="odd-calls", tools=tools, max_steps=4)]


class ToolTarget:
    """See the module."""

    name = "tools"
    examples = 160

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._numbers = itertools.count()

    def strategy(self) -> st.SearchStrategy[Any]:
        """See `Target.strategy`."""
        cases = [f"return:{name}" for name in RESULTS] + [f"raise:{name}" for name in ERRORS]
        done = st.tuples(
            st.sampled_from(("in_thread", "on_loop", "generates")), st.sampled_from(cases)
        )
        return st.one_of(done, st.tuples(st.just("typed"), mutations()))

    def attack(self, example: tuple[str, str | Mutation]) -> None:
        """See `Target.attack`."""
        name, what = example
        arguments = {"case": what} if isinstance(what, str) else _as_python(what)
        message = f"{CANARY} {next(self._numbers)}"
        OddCalls.answers[message] = _calls(name, arguments)
        with self._rig.innocent(INNOCENT):
            fate = self._rig.run("odd-tools", message)
        del OddCalls.answers[message]
        if not isinstance(arguments, Mapping):
            # The provider has a fault, and its turn says so.
            assert fate.code == "provider_unavailable", f"{fate.code}: {fate.message[:300]}"
        else:
            assert fate.completed, f"the model was not told: {fate.code} {fate.message[:300]}"
            history = self._rig.producer.history(fate.conversation_id)
            assert [message["role"] for message in history] == [
                *("user", "assistant", "tool", "assistant"),
            ]
            assert len(history[2]["content"]) < 1_100_000
        self._rig.read(fate)
        self._rig.check()

    def settle(self) -> None:
        """See `Target.settle`."""
        self._rig.settle()
