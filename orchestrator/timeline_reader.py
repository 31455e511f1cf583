"""Builds a `Timeline` from what the store has kept of a turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentapi.conversation.messages import AssistantMessage, Message, ToolMessage, to_dict
from agentapi.stores import TurnPast
from agentapi.turns import CallKind, ModelStep, TurnStatus, Verdict
from agentapi.turns.marks import Mark, MarkKind
from orchestrator.timeline import (
    Approval,
    Attempt,
    AttemptEnd,
    Child,
    RefusedWrite,
    Timeline,
    TimelineStep,
    Wait,
)


def timeline_of(past: TurnPast) -> Timeline:
    """The timeline of a turn."""
    reader = _Reader(past)
    for mark in past.marks:
        # Skip a mark that another release wrote in a different form; the others are still useful.
        try:
            reader.read(mark)
        except (ValueError, TypeError, LookupError):
            reader.complete = False
    return reader.timeline()


@dataclass
class _Reader:
    past: TurnPast
    attempts: list[Attempt] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    steps: list[TimelineStep] = field(default_factory=list)
    children: dict[str, Child] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    refused: list[RefusedWrite] = field(default_factory=list)
    epochs: dict[int, Attempt] = field(default_factory=dict)
    complete: bool = True
    unrecorded: bool = False

    def __post_init__(self) -> None:
        marks = self.past.marks
        first = next((m for m in marks if m.kind is MarkKind.CLAIMED), None)
        # The log of a turn that began under an older release is incomplete too.
        begun = self.past.turn.attempt > 0
        self.complete = (first is not None and first.data[0] == 1) if begun else True
        if self.complete:
            self._wait("queue", self.past.turn.created_at)

    def read(self, mark: Mark) -> None:
        """Process the next mark."""
        at, said = mark.at, mark.data
        match mark.kind:
            case MarkKind.CLAIMED:
                self._claimed(at, *said)
            case MarkKind.MODEL:
                self._model(at, *said)
            case MarkKind.TOOL:
                self._tool(at, *said)
            case MarkKind.USER:
                self._step(at, None, kind="user")
            case MarkKind.PARKED:
                self._parked(at, said[0])
            case MarkKind.HANDED_BACK:
                self._leave(at, AttemptEnd.HANDED_BACK, "handed_back")
            case MarkKind.LOST:
                self._leave(at, AttemptEnd.LOST, "lost")
            case MarkKind.DIED:
                self._leave(at, AttemptEnd.DIED, "lost")
            case MarkKind.RETRIED:
                ended = self.past.turn.created_at + said[0] / 1000 if said else at
                self._leave(ended, AttemptEnd.FAILED, "retried")
                if self.unrecorded:
                    self.steps[-1] = replace(self.steps[-1], repeated=True)
                    self.unrecorded = False
            case MarkKind.REFUSED:
                attempt = self.epochs.get(said[1])
                number, worker = (attempt.number, attempt.worker) if attempt else (None, None)
                self.refused.append(
                    RefusedWrite(at=at, write=said[0], attempt=number, worker=worker)
                )
            case _:
                self._of_call(mark)

    def _of_call(self, mark: Mark) -> None:
        at, said = mark.at, mark.data
        match mark.kind:
            case MarkKind.DELEGATED:
                for turn_id in said[1]:
                    self.children[turn_id] = Child(turn_id=turn_id, call_id=said[0], started_at=at)
            case MarkKind.REPLIED:
                child = self.children.get(said[0]["turn"])
                if child is not None:
                    status = TurnStatus(said[0]["status"])
                    self.children[child.turn_id] = replace(child, ended_at=at, status=status)
            case MarkKind.DECIDED:
                call_id, decision = said
                known = self.approvals.get(call_id) or Approval(call_id=call_id)
                self.approvals[call_id] = replace(
                    known,
                    decided_at=at,
                    verdict=Verdict(decision["verdict"]),
                    by=decision.get("by"),
                    reason=decision.get("reason"),
                    edited=decision.get("arguments"),
                )
            case _:
                # The output of a client tool's call is also a step.
                pass

    def _claimed(
        self, at: float, number: int, worker: str, cause: str, waited: float, epoch: int
    ) -> None:
        self._leave(at, AttemptEnd.LOST, None)
        self._end_wait(at)
        attempt = Attempt(
            number=number, worker=worker, cause=cause, waited=waited / 1000, started_at=at
        )
        self.attempts.append(attempt)
        self.epochs[epoch] = attempt

    def _leave(self, at: float, end: AttemptEnd, reason: str | None) -> None:
        """End the running attempt, if any, and begin to wait for the given reason."""
        if self.attempts and self.attempts[-1].ended_at is None:
            self.attempts[-1] = replace(self.attempts[-1], ended_at=at, end=end)
        if reason is not None:
            self._end_wait(at)
            self._wait(reason, at)

    def _wait(self, reason: str, at: float, names: Sequence[str] = ()) -> None:
        self.waits.append(Wait(reason=reason, started_at=at, names=tuple(names)))

    def _end_wait(self, at: float) -> None:
        if self.waits and self.waits[-1].ended_at is None:
            self.waits[-1] = replace(self.waits[-1], ended_at=at)

    def _parked(self, at: float, event: Mapping[str, Any]) -> None:
        self._leave(at, AttemptEnd.PARKED, None)
        calls = [each for each in event.get("calls", ()) if isinstance(each, Mapping)]
        names = [str(each["tool"]) for each in calls]
        if "waits_for" in event:
            names = str(event["waits_for"]).split(" or ")
        self._wait(str(event["reason"]), at, names)
        asked = calls if event["reason"] == "approval" else event.get("approvals", ())
        for each in asked:
            call_id, tool = str(each["call"]), str(each["tool"])
            self.approvals.setdefault(call_id, Approval(call_id=call_id, tool=tool, asked_at=at))

    def _model(  # noqa: PLR0913
        self,
        at: float,
        took: int | None,
        model: str,
        sent: int,
        got: int,
        cached: int,
        cost: float,
        outcome: str,
        calls: int,
        unrecorded: int = 0,
    ) -> None:
        self._step(
            at,
            took,
            kind="model",
            name=model,
            input_tokens=sent,
            output_tokens=got,
            cached_tokens=cached,
            cost=cost,
            outcome=outcome,
            calls=calls,
        )
        self.unrecorded = bool(unrecorded)

    def _tool(
        self, at: float, took: int | None, tool: str, call: str, failed: int, *more: str
    ) -> None:
        children = [child for child in self.children.values() if child.call_id == call]
        if took is None and children:
            took = round((at - children[0].started_at) * 1000)
        outcome = "failed" if failed else ""
        handoff = more[0] if more else None
        self._step(at, took, kind="tool", name=tool, call_id=call, outcome=outcome, handoff=handoff)
        asked = self.approvals.get(call)
        if asked is not None and not asked.tool:
            self.approvals[call] = replace(asked, tool=tool)

    def _step(self, at: float, took: int | None, **fields: Any) -> None:
        seconds = None if took is None else took / 1000
        self.steps.append(
            TimelineStep(
                index=sum(not step.repeated for step in self.steps),
                attempt=self.attempts[-1].number if self.attempts else 0,
                started_at=at - (seconds or 0),
                ended_at=at,
                seconds=seconds,
                **fields,
            )
        )

    def timeline(self) -> Timeline:
        """The timeline from the marks and from other stored data."""
        turn, past = self.past.turn, self.past
        if turn.ended_at is not None:
            if turn.status.ended:
                self._leave(turn.ended_at, AttemptEnd(turn.status.value), None)
            self._end_wait(turn.ended_at)
        for call in past.pending:
            if call.kind is CallKind.APPROVAL:
                known = self.approvals.get(call.call_id) or Approval(call_id=call.call_id)
                self.approvals[call.call_id] = replace(
                    known, tool=call.tool, expires_at=call.expires_at, default=call.default
                )
        steps = self._numbered()
        messages = messages_of_steps(past, steps)
        asked_for = _arguments(past)
        return Timeline(
            turn_id=turn.turn_id,
            conversation_id=turn.conversation_id,
            agent=turn.agent,
            status=turn.status,
            created_at=turn.created_at,
            ended_at=turn.ended_at,
            now=past.now,
            deadline_at=turn.deadline_at,
            parent_id=turn.parent_id,
            forked_from=turn.forked_from,
            complete=self.complete,
            error=turn.error,
            attempts=self.attempts,
            waits=self.waits,
            steps=[
                replace(step, message=to_dict(said) if said is not None else None)
                for step, said in zip(steps, messages, strict=True)
            ],
            children=list(self.children.values()),
            approvals=[
                replace(asked, arguments=asked_for.get(asked.call_id))
                for asked in self.approvals.values()
            ],
            refused=self.refused,
        )

    def _numbered(self) -> list[TimelineStep]:
        """Number the steps, even if the log has lost its beginning."""
        dropped = 0 if self.complete else max(0, self.past.turn.steps - len(self.steps))
        return [replace(step, index=step.index + dropped) for step in self.steps]


def messages_of_steps(past: TurnPast, steps: Sequence[TimelineStep]) -> list[Message | None]:
    """Each step's message, if it is still stored in the journal or with the result."""
    if past.steps:
        journal = dict(enumerate(past.steps))
        return [
            journal[step.index].message if step.index in journal and not step.repeated else None
            for step in steps
        ]
    own = list(past.turn.messages)[1 + len(past.turn.prior) :]
    results = {m.call_id: m for m in own if isinstance(m, ToolMessage)}
    # Match from the end, because the log may lack its beginning.
    others = [message for message in own if not isinstance(message, ToolMessage)]
    found: list[Message | None] = []
    last = max((step.index for step in steps if step.kind == "model"), default=-1)
    for step in reversed(steps):
        if step.kind == "tool":
            found.append(results.get(step.call_id or ""))
        elif _kept(step, last) and others:
            found.append(others.pop())
        else:
            found.append(None)
    return found[::-1]


def _kept(step: TimelineStep, last: int) -> bool:
    """Whether a response or message is in the history: neither rejected nor continued."""
    if step.kind == "user":
        return True
    if step.repeated:
        return False
    return step.outcome != "rejected" and (step.calls > 0 or step.index == last)


def _arguments(past: TurnPast) -> dict[str, Mapping[str, Any]]:
    """The model's arguments by call."""
    responses: list[Message] = [*past.turn.messages]
    responses += [step.message for step in past.steps if isinstance(step, ModelStep)]
    return {
        call.id: call.arguments
        for message in responses
        if isinstance(message, AssistantMessage)
        for call in message.tool_calls
    } | {call.call_id: call.arguments for call in past.pending}
