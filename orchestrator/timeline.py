"""`Timeline`: a turn's history for people: waiting, attempts, steps, children, decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from agentapi.turns import ForkOrigin, TurnError, TurnStatus, Verdict


class AttemptEnd(StrEnum):
    """Why a worker no longer runs a turn."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARKED = "parked"
    """The turn waits without a worker."""
    HANDED_BACK = "handed_back"
    """The worker was stopped, or could not run the turn, and gave it back."""
    LOST = "lost"
    """The worker was killed, or did not renew its lease."""
    DIED = "died"
    """The process in which the turn ran alone died."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """A worker that ran the turn. Times are seconds since 1970.

    Attributes:
        number: Counted from 1.
        cause: Why it began: ``first``, ``lease_expired``, ``worker_stopped``, ``woken`` or
            ``retried``.
        waited: Seconds that the turn was ready before the attempt began.
        ended_at: When it ended; None while it runs. For a lost worker, when the loss was noticed.
        end: Why it ended; None while it runs.
    """

    number: int
    worker: str
    cause: str
    waited: float
    started_at: float
    ended_at: float | None = None
    end: AttemptEnd | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """A period in which no worker had the turn.

    Attributes:
        reason: ``queue`` (for a worker or for turns before it), ``provider``, ``tool_server``,
            ``approval``, ``client``, ``children``, ``handed_back``, ``lost`` or ``retried``.
        names: What it waited for: names of providers, or of tools.
        ended_at: When it ended; None while the turn waits.
    """

    reason: str
    started_at: float
    names: Sequence[str] = ()
    ended_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TimelineStep:
    """A model's response, a tool's result, or a message that joined the turn.

    Attributes:
        index: Its number among the turn's steps, from 0.
        attempt: Number of the attempt that made it.
        name: The model or the tool.
        seconds: How long it took; None if that is not known.
        calls: How many tool calls a response contains.
        outcome: Empty for a normal response or result; otherwise ``rejected``, a finish reason, or
            ``failed``.
        call_id: The tool's call.
        handoff: The agent that answers from this step on.
        repeated: Whether the turn failed with this response and a retry asked the model again.
        message: The message as in `Orchestrator.history` (content); None if it is not stored.
    """

    index: int
    kind: Literal["model", "tool", "user"]
    attempt: int
    started_at: float
    ended_at: float
    name: str = ""
    seconds: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0
    calls: int = 0
    outcome: str = ""
    call_id: str | None = None
    handoff: str | None = None
    repeated: bool = False
    message: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Child:
    """A turn that the turn delegated to.

    Attributes:
        call_id: The call that delegated.
        ended_at: When its reply arrived; None before.
        status: How it ended; None before.
    """

    turn_id: str
    call_id: str
    started_at: float
    ended_at: float | None = None
    status: TurnStatus | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Approval:
    """A call that needed a decision.

    Attributes:
        tool: Its tool; empty if that is no longer known.
        asked_at: When the decision was requested; None if that is no longer known.
        expires_at: When `default` becomes the decision; None if never, or once it is decided.
        default: The decision if nobody decides in time; None once it is decided.
        decided_at: When somebody decided; None before.
        by: Who decided, as given by the caller; ``expiry`` if nobody decided in time.
        arguments: The model's arguments (content); None if they are not stored.
        reason: The reason for a rejection that the model got (content).
        edited: Arguments that replaced the model's (content).
    """

    call_id: str
    tool: str = ""
    asked_at: float | None = None
    expires_at: float | None = None
    default: Verdict | None = None
    decided_at: float | None = None
    verdict: Verdict | None = None
    by: str | None = None
    arguments: Mapping[str, Any] | None = None
    reason: str | None = None
    edited: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedWrite:
    """A write that the store refused, because the worker had lost the turn.

    Attributes:
        write: The kind of write: ``record``, ``commit``, ``park``, ``suspend``, ``steer`` or
            ``release``.
        attempt: Number of the worker's attempt; None if that is no longer known.
    """

    at: float
    write: str
    attempt: int | None = None
    worker: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """A turn's history. Times are seconds since 1970, by the store's clock.

    Text of people, models and tools is only in `TimelineStep.message`, `Approval` and `error`;
    everything else is metadata.

    Attributes:
        now: When it was read.
        parent_id: The turn that waits for this one.
        forked_from: The turn that this one runs again.
        complete: Whether nothing is missing; the log of a long turn loses its oldest entries.
        cost: Cost of all listed model calls.
        refused: Writes of workers that had lost the turn.
    """

    turn_id: str
    conversation_id: str
    agent: str
    status: TurnStatus
    created_at: float
    ended_at: float | None
    now: float
    deadline_at: float | None = None
    parent_id: str | None = None
    forked_from: ForkOrigin | None = None
    complete: bool = True
    error: TurnError | None = None
    attempts: Sequence[Attempt] = ()
    waits: Sequence[Wait] = ()
    steps: Sequence[TimelineStep] = ()
    children: Sequence[Child] = ()
    approvals: Sequence[Approval] = ()
    refused: Sequence[RefusedWrite] = ()

    @property
    def until(self) -> float:
        """When the turn ended, or when the timeline was read."""
        return self.now if self.ended_at is None else self.ended_at

    @property
    def cost(self) -> float:
        """Cost of the listed model calls."""
        return sum(step.cost for step in self.steps)

    def without_content(self) -> Timeline:
        """The timeline without the text of people, models and tools."""
        error = self.error and TurnError(code=self.error.code, message="", status=self.error.status)
        return replace(
            self,
            error=error,
            steps=[replace(step, message=None) for step in self.steps],
            approvals=[
                replace(asked, arguments=None, reason=None, edited=None) for asked in self.approvals
            ],
        )

    def without_workers(self) -> Timeline:
        """The timeline without names of workers, for people who use the fleet but do not run it."""
        return replace(
            self,
            attempts=[replace(attempt, worker="") for attempt in self.attempts],
            refused=[replace(refused, worker=None) for refused in self.refused],
        )
