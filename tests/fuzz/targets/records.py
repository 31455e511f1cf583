"""Records in Redis that are not as this release wrote them, at each stage of a turn."""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hypothesis import strategies as st

from agentapi import Agent, tool
from agentapi.conversation.messages import AssistantMessage, ToolCall
from agentapi.conversation.window import Window
from agentapi.errors import AgentAPIError
from agentapi.ids import partition_of
from agentapi.redis.keys import conversation_keys, due_key, turn_keys
from agentapi.stores import Accepted, Claim, Wakeup
from agentapi.turns import TERMINAL, Decision, ModelStep, Verdict
from orchestrator.turn_request import TurnRequest, new_turn
from tests.fuzz.damage import Damage, DamageKind, damages, do_damage, keys_of
from tests.fuzz.rig import BOUND, INNOCENT, Rig
from tests.fuzz.served import Reader
from tests.fuzz.values import CANARY

AGENT: Final = "odd-records"

PATIENCE: Final = 0.3
"""Seconds for a turn that need not end: its conversation is damaged, not its own records."""


class Stage(StrEnum):
    """Where the turn stands when the damage happens."""

    QUEUED = "queued"
    """It waits for its worker, behind a turn that completed."""
    LOST = "lost"
    """Its worker died behind its first step."""
    PARKED = "parked"
    """It waits for an approval."""
    ENDED = "ended"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accident:
    """Damage at a stage."""

    stage: Stage
    damage: Damage


@tool
def note(text: str) -> str:
    """Note something."""
    return f"noted {text}"


@tool(requires_approval=True)
def sign(text: str) -> str:
    """Sign something."""
    return f"signed {text}"


def agents() -> list[Agent]:
    """The victim."""
    return [Agent(name=AGENT, provider="offline", tools=[note, sign])]


class RecordTarget:
    """See the module."""

    name = "records"
    examples = 35

    def __init__(self, rig: Rig, reader: Reader) -> None:
        self._rig = rig
        self._reader = reader
        self._numbers = itertools.count()
        self._prefix = uuid.uuid4().hex[:8]

    def strategy(self) -> st.SearchStrategy[Accident]:
        """See `Target.strategy`."""
        return st.builds(Accident, stage=st.sampled_from(Stage), damage=damages())

    def attack(self, example: Accident) -> None:
        """See `Target.attack`."""
        self._reader.forget()
        public = f"{self._prefix}{next(self._numbers)}"
        conversation = self._reader.internal(public)
        said = {"conversation_id": conversation, "tenant_id": self._reader.tenant}
        if example.stage is not Stage.ENDED:
            self._rig.run(AGENT, f'/note {{"text": "{CANARY}"}}', **said)
        turn_id, wakeup = self._prepare(example.stage, said)
        key = self._damage(example.damage, conversation, turn_id)
        try:
            with self._rig.innocent(INNOCENT):
                ended = self._go_on(example, key, turn_id, wakeup)
            self._reader.read(public, turn_id, ended=ended)
            self._behind(said)
            self._reader.delete(public)
        except AssertionError as error:
            raise AssertionError(f"{key!r} is damaged: {error}") from error
        finally:
            self._clear(conversation, turn_id)
        self._rig.forgive(_EXPECTED)
        self._rig.check()
        self._reader.check()

    def _prepare(self, stage: Stage, said: dict[str, Any]) -> tuple[str, Wakeup]:
        if stage is Stage.ENDED:
            fate = self._rig.run(AGENT, f'/note {{"text": "{CANARY}"}}', stream=True, **said)
            return fate.turn_id, _wakeup(said, fate.turn_id)
        if stage is Stage.PARKED:
            handle = self._rig.producer.enqueue(AGENT, f'/sign {{"text": "{CANARY}"}}', **said)
            self._rig.until_parked(handle.turn_id)
            return handle.turn_id, _wakeup(said, handle.turn_id)
        request = TurnRequest(agent=AGENT, message=f"{CANARY} hi", **said)
        [answer] = self._rig.store.enqueue([new_turn(request, {}, self._rig.settings)])
        assert isinstance(answer, Accepted)
        if stage is Stage.LOST:
            self._lose(said["conversation_id"], answer.turn_id)
        return answer.turn_id, _wakeup(said, answer.turn_id)

    def _lose(self, conversation: str, turn_id: str) -> None:
        claim = self._rig.store.claim(
            conversation, turn_id, owner="dead", token="dead:1", window=Window()
        )
        assert isinstance(claim, Claim)
        call = ToolCall(id="c1", name="note", arguments={"text": CANARY})
        step = ModelStep(message=AssistantMessage(content=CANARY, tool_calls=(call,)))
        self._rig.store.record(claim.lease, 0, step)
        self._rig.redis.hset(conversation_keys(conversation).lease, "expires", 0)

    def _damage(self, damage: Damage, conversation: str, turn_id: str) -> bytes:
        keys = keys_of(self._rig.redis, conversation, turn_id)
        keys.append(due_key(partition_of(conversation)).encode())
        key = keys[damage.key % len(keys)]
        if self._rig.redis.exists(key):
            do_damage(self._rig.redis, key, damage)
        return key

    def _go_on(self, example: Accident, key: bytes, turn_id: str, wakeup: Wakeup) -> bool:
        """Wake the turn, approve what it waits for, and see that it ends if it must."""
        if example.stage is Stage.PARKED:
            call = f"call_{1}_{0}"
            for pending in self._calls(turn_id) or [call]:
                with contextlib.suppress(AgentAPIError):
                    decision = Decision(verdict=Verdict.APPROVED, by=CANARY)
                    self._rig.producer.decide(turn_id, pending, decision)
        self._rig.send(wakeup)
        if example.stage is Stage.ENDED:
            return self._ended(turn_id, 0.01)
        ended = self._ended(turn_id, BOUND if _must_end(example, key) else PATIENCE)
        if not ended:
            assert not _must_end(example, key), f"{key!r} keeps its turn from ending"
            with contextlib.suppress(AgentAPIError):
                self._rig.producer.cancel(turn_id)
        return ended

    def _calls(self, turn_id: str) -> list[str]:
        with contextlib.suppress(AgentAPIError):
            return [call.call_id for call in self._rig.store.calls.pending(turn_id)]
        return []

    def _ended(self, turn_id: str, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                status: Any = self._rig.redis.hget(turn_keys(turn_id).turn, "status")
                if (status or b"").decode() in TERMINAL:
                    return True
            time.sleep(0.01)
        return False

    def _behind(self, said: dict[str, Any]) -> None:
        """A producer goes on with the conversation: it works, or is told why not."""
        with contextlib.suppress(AgentAPIError):
            handle = self._rig.producer.enqueue(AGENT, "And now?", **said)
            self._ended(handle.turn_id, PATIENCE)

    def _clear(self, conversation: str, turn_id: str) -> None:
        client = self._rig.redis
        keys = keys_of(client, conversation, turn_id)
        turns = keys_of(client, f"{{{partition_of(conversation):03d}}}:t:")
        due = due_key(partition_of(conversation))
        client.delete(*keys, *turns, due)

    def settle(self) -> None:
        """See `Target.settle`."""
        self._rig.settle()


def _wakeup(said: dict[str, Any], turn_id: str) -> Wakeup:
    return Wakeup(conversation_id=said["conversation_id"], turn_id=turn_id, agent=AGENT)


_EXPECTED: Final = ("StoreFault", "UnreadableRecord")
"""What a worker says of a record that is not its own to mend."""


def _must_end(example: Accident, key: bytes) -> bool:
    """Whether only what the turn itself reads is damaged: then the turn ends, and says why."""
    # A question that nobody can read is one that nobody decides: its turn waits, or is cancelled.
    own = key.endswith((b":messages", b":journal"))
    kinds = (DamageKind.CHANGE, DamageKind.ADD, DamageKind.NEWER)
    return own and example.stage is not Stage.ENDED and example.damage.kind in kinds
