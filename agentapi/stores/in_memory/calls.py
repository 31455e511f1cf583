"""Calls that wait, in memory; the twin of the Lua scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import orjson
from typing_extensions import override

from agentapi.settings import Settings
from agentapi.stores.calls import CallStore, Errand, ErrandKind, Suspended
from agentapi.stores.in_memory.state import Conversation, State, StoredCalls, StoredTurn
from agentapi.stores.lease import Lease, Wakeup
from agentapi.stores.redis.calls_codec import (
    NOBODY,
    answered_event,
    decided_event,
    decision_to_json,
    held_event,
    replied_event,
)
from agentapi.stores.refusals import answered_otherwise, decided_otherwise, no_call, no_turn
from agentapi.turns import (
    Answers,
    CallBook,
    CallKind,
    ChildReply,
    ChildTurn,
    ClientCall,
    Continuation,
    Decision,
    EventType,
    HeldCalls,
    PendingCall,
    Question,
    Turn,
    TurnStatus,
    Verdict,
)
from agentapi.turns.client_tools import NOT_IN_TIME
from agentapi.turns.marks import LONGEST_DECISION, MarkKind


class InMemoryCalls(CallStore):
    """The `CallStore` of eager mode."""

    def __init__(self, settings: Settings, state: State) -> None:
        self._settings = settings
        self._state = state

    @override
    def suspend(self, lease: Lease, held: HeldCalls) -> Suspended | CallBook:
        with self._state.changed:
            entry = self._state.entry(lease)
            if entry.parked == lease.fence:
                return Suspended.PARKED
            entry, conversation, _ = self._state.owned(lease, "suspend")
            if entry.turn.cancel_requested:
                return Suspended.CANCELLED
            now = self._state.now()
            _note(entry, held, now)
            book = take_calls(entry, lease.epoch, now)
            ready = any(question.call_id in book.decisions for question in held.questions)
            outputs = held.client and all(c.call_id in entry.calls.outputs for c in held.client)
            if ready or outputs or (held.children and not entry.calls.awaited):
                return book
            self._park(entry, conversation, lease, held)
            return Suspended.PARKED

    def _park(
        self, entry: StoredTurn, conversation: Conversation, lease: Lease, held: HeldCalls
    ) -> None:
        turn, calls = entry.turn, entry.calls
        asked: list[Question | ClientCall] = [*held.questions, *held.client]
        expiries = (calls.expires.get(each.call_id, math.inf) for each in asked)
        deadline = math.inf if turn.deadline_at is None else turn.deadline_at
        wake = min([deadline, *expiries])
        if calls.awaited:
            self._state.leave(ErrandKind.START, turn.turn_id, turn.turn_id, self._grace)
        conversation.lease, conversation.due = None, wake
        entry.parked = lease.fence
        segments = turn.segments
        end = held.segment
        if end is not None and (not segments or segments[-1].responses != held.responses):
            # A part of the turn ends here, once per model response.
            segments = (*segments, replace(end, at=self._state.now()))
        entry.turn = replace(
            turn,
            status=TurnStatus.PARKED,
            wakes_at=wake if wake < math.inf else None,
            waiting_for=None,
            parks=turn.parks + 1,
            segments=segments,
        )
        entry.note(self._state.now(), MarkKind.PARKED, held_event(held))
        self._state.emit(entry, EventType.PARKED, held_event(held))

    @property
    def _grace(self) -> float:
        return self._settings.dispatch_grace

    @override
    def decide(self, turn_id: str, call_id: str, decision: Decision) -> Wakeup | None:
        with self._state.changed:
            entry = self._entry(turn_id)
            if entry.turn.status.ended:
                raise no_call(turn_id, call_id, entry.turn.status)
            _settle_expired(entry, self._state.now())
            if call_id not in entry.calls.questions:
                raise no_call(turn_id, call_id)
            known = entry.calls.decisions.get(call_id)
            if known is None:
                entry.calls.decisions[call_id] = decision
                _note_decision(entry, self._state.now(), call_id, decision)
                event = decided_event(call_id, decision)
                self._state.emit(entry, EventType.DECIDED, event)
            elif known != decision:
                raise decided_otherwise(turn_id, call_id, known)
            return self._wake(entry)

    @override
    def answer(self, turn_id: str, answers: Answers) -> Wakeup | None:
        with self._state.changed:
            entry = self._entry(turn_id)
            calls = entry.calls
            if entry.turn.status.ended:
                raise no_call(turn_id, next(iter(answers.outputs), ""), entry.turn.status)
            _settle_expired(entry, self._state.now())
            _check(turn_id, calls, answers)
            news = False
            for call_id, output in answers.outputs.items():
                if call_id not in calls.outputs:
                    news = True
                    calls.outputs[call_id] = output
                    entry.note(self._state.now(), MarkKind.ANSWERED, call_id)
                    self._state.emit(entry, EventType.ANSWERED, answered_event(call_id, output))
            for call_id, decision in answers.decisions.items():
                if call_id not in calls.decisions:
                    news = True
                    calls.decisions[call_id] = decision
                    _note_decision(entry, self._state.now(), call_id, decision)
                    self._state.emit(entry, EventType.DECIDED, decided_event(call_id, decision))
            if news and answers.continuation is not None:
                entry.turn = _continued(entry.turn, answers.continuation)
            return None if calls.client_waits else self._wake(entry)

    @override
    def pending(self, turn_id: str) -> list[PendingCall]:
        with self._state.changed:
            return pending_of(self._state.joined(turn_id))

    @override
    def children(self, turn_id: str) -> list[tuple[ChildTurn, bool]]:
        with self._state.changed:
            entry = self._state.turns.get(turn_id)
            if entry is None:
                return []
            return [
                (child, child.turn_id in entry.calls.awaited)
                for group in entry.calls.children.values()
                for child in group
            ]

    @override
    def deliver(self, parent_id: str, reply: ChildReply) -> Wakeup | None:
        with self._state.changed:
            entry = self._state.turns.get(parent_id)
            if entry is None:
                return None
            calls, turn = entry.calls, entry.turn
            if reply.turn_id in calls.awaited:
                calls.awaited.remove(reply.turn_id)
                calls.replies[reply.turn_id] = reply
                if turn.status.ended:
                    return None
                entry.note(self._state.now(), MarkKind.REPLIED, replied_event(reply))
                self._state.emit(entry, EventType.REPLIED, replied_event(reply))
                return None if calls.awaited else self._wake(entry)
            if reply.turn_id not in calls.replies or calls.awaited:
                return None
            # A repeat is answered like the first call until the parent is claimed.
            parked = turn.status is TurnStatus.PARKED and turn.wakes_at is not None
            woken = parked and (turn.wakes_at or 0) <= self._state.now()
            return self._state.wakeup(parent_id) if woken else None

    @override
    def settle(self, errands: Sequence[Errand]) -> None:
        with self._state.changed:
            for errand in errands:
                self._state.errands.pop(errand, None)

    def _wake(self, entry: StoredTurn) -> Wakeup | None:
        if entry.turn.status is not TurnStatus.PARKED:
            return None
        now = self._state.now()
        entry.turn = replace(entry.turn, wakes_at=now)
        self._state.conversations[entry.turn.conversation_id].due = now + self._grace
        return self._state.wakeup(entry.turn.turn_id)

    def _entry(self, turn_id: str) -> StoredTurn:
        entry = self._state.turns.get(turn_id)
        if entry is None:
            raise no_turn(turn_id)
        return entry


def pending_of(entry: StoredTurn) -> list[PendingCall]:
    """The calls of a turn that wait."""
    turn, calls = entry.turn, entry.calls
    if turn.status.ended:
        return []
    asked: list[Question | ClientCall] = []
    asked += [q for q in calls.questions.values() if q.call_id not in calls.decisions]
    asked += [c for c in calls.client.values() if c.call_id not in calls.outputs]
    return [
        PendingCall(
            turn_id=turn.turn_id,
            conversation_id=turn.conversation_id,
            agent=turn.agent,
            call_id=each.call_id,
            tool=each.tool,
            arguments=each.arguments,
            expires_at=calls.expires.get(each.call_id),
            default=each.default if isinstance(each, Question) else Verdict.REJECTED,
            schema=each.schema if isinstance(each, Question) else None,
            kind=CallKind.APPROVAL if isinstance(each, Question) else CallKind.CLIENT,
        )
        for each in sorted(asked, key=lambda each: each.number)
    ]


def _note(entry: StoredTurn, held: HeldCalls, now: float) -> None:
    """Store what a turn waits for, unless it is already stored."""
    calls = entry.calls
    for question in held.questions:
        if question.call_id not in calls.questions:
            calls.questions[question.call_id] = question
            if question.timeout is not None:
                calls.expires[question.call_id] = now + question.timeout
    for call in held.client:
        if call.call_id not in calls.client:
            calls.client[call.call_id] = call
            if call.timeout is not None:
                calls.expires[call.call_id] = now + call.timeout
    for call_id, children in groupby(held.children, lambda child: child.call_id):
        new = call_id not in calls.children
        group = calls.children.setdefault(call_id, tuple(children))
        if new:
            ids = [child.turn_id for child in group]
            entry.note(now, MarkKind.DELEGATED, call_id, ids)
        calls.awaited |= {child.turn_id for child in group} - set(calls.replies)


def _settle_expired(entry: StoredTurn, now: float) -> None:
    calls = entry.calls
    for call_id, expires in calls.expires.items():
        if expires > now:
            continue
        if call_id in calls.client:
            if call_id not in calls.outputs:
                calls.outputs[call_id] = NOT_IN_TIME
                entry.note(expires, MarkKind.ANSWERED, call_id, True)
        elif call_id not in calls.decisions:
            default = Decision(verdict=calls.questions[call_id].default, by=NOBODY)
            calls.decisions[call_id] = default
            _note_decision(entry, expires, call_id, default)


def _note_decision(entry: StoredTurn, at: float, call_id: str, decision: Decision) -> None:
    """Log the decision; a long one without its reason and arguments."""
    record = orjson.loads(stored := decision_to_json(decision))
    if len(stored) > LONGEST_DECISION:
        by = {} if decision.by is None else {"by": decision.by}
        record = {"verdict": decision.verdict, **by, "cut": True}
    entry.note(at, MarkKind.DECIDED, call_id, record)


def _check(turn_id: str, calls: StoredCalls, answers: Answers) -> None:
    """Raise an error if one of the calls is not waiting for its answer."""
    for call_id, output in answers.outputs.items():
        if call_id not in calls.client:
            raise no_call(turn_id, call_id)
        if calls.outputs.get(call_id, output) != output:
            raise answered_otherwise(turn_id, call_id)
    for call_id, decision in answers.decisions.items():
        if call_id not in calls.questions:
            raise no_call(turn_id, call_id)
        if (known := calls.decisions.get(call_id, decision)) != decision:
            raise decided_otherwise(turn_id, call_id, known)


def _continued(turn: Turn, continuation: Continuation) -> Turn:
    return replace(
        turn,
        parts={**turn.parts, continuation.part: dict(continuation.metadata)},
        stream=turn.stream if continuation.stream is None else continuation.stream,
        client_tools=continuation.client_tools or turn.client_tools,
        options=continuation.options or turn.options,
    )


def take_calls(entry: StoredTurn, epoch: int, now: float) -> CallBook:
    """Hand the decisions to the worker of an epoch."""
    calls = entry.calls
    _settle_expired(entry, now)
    new = [call_id for call_id in calls.decisions if call_id not in calls.given]
    calls.given |= dict.fromkeys(new, epoch)
    return CallBook(
        decisions=dict(calls.decisions),
        begun_before=frozenset(c for c, given in calls.given.items() if given != epoch),
        children=dict(calls.children),
        replies=dict(calls.replies),
        outputs=dict(calls.outputs),
    )
