"""What producers pass: agents, messages, attachments, ids, metadata, contexts, policies, times."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from agentapi import Agent, File, Image, TurnContext
from agentapi.errors import AgentAPIError
from agentapi.turns import Decision, Verdict
from orchestrator.turn_request import TurnRequest
from tests.fuzz.rig import BOUND, INNOCENT, Rig
from tests.fuzz.values import CANARY, ODD, Raw

AGENT: Final = "odd-producers"

_OBJECTS: Final[Mapping[str, Any]] = {
    "bytes": b"\xff",
    "object": object(),
    "set": {CANARY},
    "class": Agent,
    "function": print,
    "NaN itself": float("nan"),
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "long integer": 10**5000,
    "within itself": [],
    "deep": json.loads("[" * 900 + "]" * 900),
    "integer keys": {1: CANARY},
    "image": Image(data=b"\x89PNG", media_type="image/png"),
    "image elsewhere": Image(url=f"https://example.com/{CANARY}"),
    "file": File(data=b"x" * 1000, name=f"{CANARY}\x00/../a.pdf", media_type="application/pdf"),
    "parts": [CANARY, Image(data=b"\x89PNG", media_type="image/png"), CANARY],
    "odd parts": [CANARY, None, 7, b"x", [CANARY]],
    "a turn id": "000-" + "0" * 32,
    "a newline": f"{CANARY}\n",
    "braces": "{000}:messages",
    "512 characters": "x" * 512,
    "513 characters": "x" * 513,
    "512 emoji": "\U0001f600" * 512,
}
_OBJECTS["within itself"].append(_OBJECTS["within itself"])

VALUES: Final[Mapping[str, Any]] = {
    **{name: value for name, value in ODD.items() if not isinstance(value, Raw)},
    **_OBJECTS,
}

ARGUMENTS: Final = (
    "agent",
    "message",
    "conversation_id",
    "user_id",
    "tenant_id",
    "idempotency_key",
    "metadata",
    "stream",
    "on_busy",
    "on_abort",
    "deadline",
    "context",
    "context.in",
)

CALLS: Final = ("turn", "cancel", "retry", "decide", "history", "reset", "gather", "chain")


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Odd arguments of `enqueue`, by the names of their values; or those of another method."""

    call: str
    values: tuple[tuple[str, str], ...]


def agents() -> list[Agent]:
    """Who answers."""
    return [Agent(name=AGENT, provider="offline", system_prompt=_prompt)]


def _prompt(turn: TurnContext) -> str:
    return f"{turn.context} {turn.metadata}"


class ProducerTarget:
    """See the module."""

    name = "producers"
    examples = 200

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._numbers = itertools.count()

    def strategy(self) -> st.SearchStrategy[Arguments]:
        """See `Target.strategy`."""
        value = st.sampled_from(sorted(VALUES))
        enqueued = st.lists(
            st.tuples(st.sampled_from(ARGUMENTS), value), min_size=1, max_size=3
        ).map(lambda found: Arguments(call="enqueue", values=tuple(found)))
        called = st.builds(
            lambda call, one, two: Arguments(call=call, values=(("a", one), ("b", two))),
            st.sampled_from(CALLS),
            value,
            value,
        )
        return st.one_of(enqueued, enqueued, called)

    def attack(self, example: Arguments) -> None:
        """See `Target.attack`."""
        values = {name: VALUES[value] for name, value in example.values}
        with self._rig.innocent(INNOCENT):
            if example.call == "enqueue":
                self._enqueue(values)
            else:
                self._call(example.call, values["a"], values["b"])
        self._rig.check()

    def _enqueue(self, values: dict[str, Any]) -> None:
        request: dict[str, Any] = {"agent": AGENT, "message": CANARY, **values}
        if "context.in" in request:
            request["context"] = {"in": request.pop("context.in")}
        if isinstance(named := request.get("conversation_id"), str):
            # Logs show ids of conversations.
            request["conversation_id"] = named.replace(CANARY, "conversation")
        try:
            [handle] = self._rig.producer.enqueue_many([TurnRequest(**request)])
        except AgentAPIError as error:
            _see(error)
            return
        fate = self._rig.fate(handle.turn_id, handle.conversation_id)
        assert fate.code != "internal", fate.message[:300]
        self._rig.read(fate)
        # JSON and back: what was taken can be shown to anybody.
        json.dumps(dict(handle.info().metadata), allow_nan=False).encode()
        json.dumps(handle.info().context, allow_nan=False).encode()

    def _call(self, name: str, a: Any, b: Any) -> None:
        producer = self._rig.producer
        calls: dict[str, Callable[[], object]] = {
            "turn": lambda: producer.turn(a),
            "cancel": lambda: producer.cancel(a),
            "retry": lambda: producer.retry(a),
            "decide": lambda: producer.decide(
                a, b, Decision(verdict=Verdict.APPROVED, reason=CANARY, by=b)
            ),
            "history": lambda: producer.history(a),
            "reset": lambda: producer.reset(a),
            "gather": lambda: producer.gather([(AGENT, a), (AGENT, b)]).result(BOUND),
            "chain": lambda: producer.chain([(AGENT, a), (AGENT, b)]).result(BOUND),
        }
        try:
            calls[name]()
        except AgentAPIError as error:
            _see(error)

    def settle(self) -> None:
        """See `Target.settle`."""
        self._rig.settle()


def _see(error: AgentAPIError) -> None:
    """A refusal says something, and something that can be printed."""
    text = str(error)
    assert 10 < len(text) < 3_000, f"an error of {len(text)} characters: {text[:200]!r}"
    text.encode()
