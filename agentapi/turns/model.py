"""A turn: one message to an agent in a conversation, and everything until its reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Generic

from typing_extensions import TypeVar

from agentapi.conversation.finish import FinishReason
from agentapi.conversation.messages import AssistantMessage, Attachment, Message, Usage
from agentapi.turns.budget import Limits
from agentapi.turns.client_tools import ClientTools, Segment
from agentapi.turns.kinds import TurnKind
from agentapi.turns.request_options import RequestOptions
from agentapi.turns.waiting import WaitingFor

OutputT = TypeVar("OutputT", default=Any)


class TurnStatus(StrEnum):
    """The state of a turn."""

    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the turn has ended."""
        return self in TERMINAL


TERMINAL: Final = frozenset({TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED})

TRANSITIONS: Final[Mapping[TurnStatus, frozenset[TurnStatus]]] = {
    TurnStatus.QUEUED: frozenset({TurnStatus.RUNNING, TurnStatus.FAILED, TurnStatus.CANCELLED}),
    TurnStatus.RUNNING: frozenset({TurnStatus.QUEUED, TurnStatus.PARKED}) | TERMINAL,
    TurnStatus.PARKED: frozenset({TurnStatus.QUEUED, TurnStatus.RUNNING}) | TERMINAL,
    TurnStatus.COMPLETED: frozenset(),
    TurnStatus.FAILED: frozenset({TurnStatus.QUEUED}),
    TurnStatus.CANCELLED: frozenset(),
}
"""For each status, the statuses that may follow. `RUNNING` follows `RUNNING` at a takeover,
`QUEUED` follows `FAILED` at a retry, and `FAILED` follows `QUEUED` when a deadline passes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnError:
    """Why a turn failed.

    Attributes:
        code: The error's stable name.
        message: Its text.
        status: HTTP status of the provider that refused; None when it was not asked, did not
            answer, or is not at fault.
    """

    code: str
    message: str
    status: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The error as it is stored and sent; a status that is not known is left out."""
        data: dict[str, Any] = {"code": self.code, "message": self.message}
        return data if self.status is None else {**data, "status": self.status}


class OnBusy(StrEnum):
    """What a new message does when the conversation has turns that have not ended."""

    ENQUEUE = "enqueue"
    """The message waits for all of them."""
    REJECT = "reject"
    """The message is refused with `ConversationBusy`."""
    INTERRUPT = "interrupt"
    """The first turn is cancelled and keeps its messages in the history; the others stay."""
    REPLACE = "replace"
    """The first turn is cancelled and leaves nothing; the others stay."""
    MERGE = "merge"
    """The message joins the newest turn if no worker has begun it, and waits otherwise."""
    STEER = "steer"
    """The message joins the turn that runs, before its next model call, and waits otherwise."""


class OnAbort(StrEnum):
    """What a turn that is cancelled or fails leaves in the history.

    Without a choice, a turn that fails keeps its messages, and one that is cancelled drops them.
    """

    DROP = "drop"
    """Nothing."""
    KEEP = "keep"
    """The user's message and the finished steps. Open calls get a result that says that they are
    open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForkOrigin:
    """What a turn is a fork of.

    Attributes:
        turn_id: The turn that was run again from one of its steps.
        step: How many of that turn's steps were taken over.
        by: Who asked for it, in the caller's own words.
    """

    turn_id: str
    step: int = 0
    by: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnSpec:
    """What a turn is to do, from its acceptance to its end.

    Attributes:
        turn_id: Created by the caller; the same id again is the same turn.
        agent: The agent that answers.
        input: The user's message.
        kind: What a worker does for it.
        metadata: The caller's own JSON object, given back unchanged.
        stream: Whether the reply's text goes to the turn's events as it arrives.
        on_abort: What the turn leaves in the history when it is cancelled, and when it fails too
            unless `on_failure` says otherwise.
        on_failure: What it leaves when it fails. What was refused itself (by the provider or by a
            hook) is kept only if `on_abort` is ``keep``: it would make later turns fail too.
        deadline_at: When it must have ended, with all that it delegates, by the store's clock.
        parent_id: The turn that waits for this one's reply.
        depth: How many turns are above it.
        budget: What it may spend, with all that it delegates, besides its agent's own limits.
        attachments: Images and files of the message.
        client_tools: Functions that the client calls.
        prior: Messages after the user's that the caller brings: the model's earlier responses and
            the outputs of its calls.
        options: What the request decides besides; None for nothing.
        context: What its prompts, tools and hooks get as `TurnContext.context`; None for nothing.
        trace: The span that enqueued it, as `TraceContext.text` writes it; None without traces.
        forked_from: The turn that it runs again; None for a turn of its own.
    """

    turn_id: str
    conversation_id: str
    agent: str
    input: str
    kind: TurnKind = TurnKind.AGENT
    user_id: str | None = None
    tenant_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    on_abort: OnAbort = OnAbort.DROP
    on_failure: OnAbort | None = None
    deadline_at: float | None = None
    parent_id: str | None = None
    depth: int = 0
    budget: Limits | None = None
    attachments: Sequence[Attachment] = ()
    client_tools: ClientTools | None = None
    prior: Sequence[Message] = ()
    context: Mapping[str, Any] | None = None
    options: RequestOptions | None = None
    trace: str | None = None
    forked_from: ForkOrigin | None = None

    @property
    def stored(self) -> bool:
        """Whether the turn stays in the history; see `RequestOptions.store`."""
        return self.options is None or self.options.store


@dataclass(frozen=True, kw_only=True, slots=True)
class NewTurn(TurnSpec):
    """What `enqueue` hands to the store. All of it is validated already.

    Attributes:
        on_busy: What happens when the conversation has turns that have not ended.
        timeout: Seconds from its acceptance in which it must end, with all that it delegates; when
            `deadline_at` is given too, the earlier of both counts.
        blobs: Bytes of the attachments by name.
        idle_time: Seconds of inactivity after which its conversation is forgotten; the setting
            when None, never when it is negative.
    """

    on_busy: OnBusy = OnBusy.ENQUEUE
    timeout: float | None = None
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    idle_time: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn(TurnSpec):
    """A turn as it stands in the store. Times are seconds since 1970 by the store's clock.

    Attributes:
        attempt: How often it was claimed; 0 while it waits for its first worker.
        handbacks: How many of the claims were handed back by a worker that was stopped.
        deferrals: How many of those were handed back by workers that could not run it.
        parks: How often it waited without a worker.
        losses: How often it lost its worker: killed, or silent for longer than a lease.
        deaths: How often the process died in which it ran alone, since the last retry.
        suspect: Whether it lost its worker, and therefore runs in a process of its own.
        failures: How often the current model call failed with errors worth a retry.
        worker: The worker that claimed it last.
        wakes_at: While it is parked, when it continues unless something wakes it before.
        waiting_for: The provider or server of tools that it waits for, until the call that failed
            has succeeded. None for a turn that waits for a decision or for other turns.
        steps: Model responses and tool results so far.
        text: The reply, once completed.
        error: Why it failed, once failed.
        answered_by: The agent that replied, once completed.
        structured: Whether `text` is JSON of that agent's `output_type`.
        last_event: Number of its newest event, -1 before the first.
        segments: Where it parked to ask its client.
        parts: What requests that answered its calls stored with its parts, by the part's number.
        steered: Whether messages wait to join it.
    """

    status: TurnStatus
    attempt: int = 0
    handbacks: int = 0
    deferrals: int = 0
    parks: int = 0
    losses: int = 0
    deaths: int = 0
    suspect: bool = False
    failures: int = 0
    worker: str | None = None
    wakes_at: float | None = None
    waiting_for: WaitingFor | None = None
    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    text: str | None = None
    messages: Sequence[Message] = ()
    error: TurnError | None = None
    answered_by: str | None = None
    structured: bool = False
    cancel_requested: bool = False
    last_event: int = -1
    segments: Sequence[Segment] = ()
    parts: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    steered: bool = False
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped, once completed; None before, and for turns without a reply."""
        last = self.messages[-1] if self.messages else None
        return last.finish_reason if isinstance(last, AssistantMessage) else None

    @classmethod
    def accepted(cls, spec: TurnSpec, *, deadline_at: float | None, now: float) -> Turn:
        """The turn at its acceptance.

        Args:
            spec: What it is to do.
            deadline_at: When it must have ended.
            now: The store's time.
        """
        given = {each.name: getattr(spec, each.name) for each in fields(TurnSpec)}
        given |= {"deadline_at": deadline_at, "metadata": dict(spec.metadata)}
        return cls(**given, status=TurnStatus.QUEUED, created_at=now)


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnResult(Generic[OutputT]):
    """The result of a completed turn.

    Attributes:
        text: The reply.
        messages: All messages that the turn added to the history, the user's first.
        usage: Tokens of all its model calls.
        steps: Model responses and tool results.
        agent: Name of the agent that replied; another one than was asked after a handoff.
        output: The reply as the agent's `output_type`; plain JSON where the type is not known;
            None for agents without one, and for a reply that is a refusal or was filtered.
        finish_reason: Why the model stopped: `STOP` for a complete reply. See
            `Agent(on_incomplete=...)`.
    """

    text: str
    messages: Sequence[Message]
    usage: Usage
    steps: int
    agent: str = ""
    output: OutputT | None = None
    finish_reason: FinishReason = FinishReason.STOP


class EventType(StrEnum):
    """The type of an event, with its data in brackets."""

    STARTED = "started"
    """A worker claimed the turn [attempt, worker]."""
    DELTA = "delta"
    """A piece of the reply's text [text, whether it is a refusal]."""
    RESET = "reset"
    """Text streamed since the last step will be produced again [attempt]."""
    STEP = "step"
    """A step was recorded [index, kind, the tools' names, their calls' ids, failed; for a model's
    response the model, whether it was rejected, and the finish reason of one that was not complete.
    A reply with the finish reason ``length`` goes on in the next step]."""
    CALL_DELTA = "call_delta"
    """A piece of the arguments of a client tool's call [index, tool, arguments]."""
    PARKED = "parked"
    """The turn waits without a worker [seconds, reason; for decisions, client tools and child turns
    the calls' ids and tools; for a provider or server of tools its names in waits_for, and
    failures]."""
    DECIDED = "decided"
    """A person decided about a call [call, verdict]."""
    ANSWERED = "answered"
    """The client gave the output of a call [call, failed]."""
    JOINED = "joined"
    """The message joined a turn that ran; that turn answers it [turn]."""
    REPLIED = "replied"
    """A turn that this one waits for has ended [turn, status]."""
    RETRIED = "retried"
    """The turn had failed and runs again from its last recorded step."""
    UNKNOWN = "unknown"
    """An event of a newer release, of which this release knows only the number. The turn continues
    [type]."""
    COMPLETED = "completed"
    """The turn has a reply [steps, tokens; its finish reason unless that is ``stop``]."""
    FAILED = "failed"
    """The turn ended without a reply [code, message]."""
    CANCELLED = "cancelled"
    """The turn was cancelled."""

    @property
    def ends(self) -> bool:
        """Whether no event follows, unless the turn is retried."""
        return self in (
            EventType.COMPLETED,
            EventType.FAILED,
            EventType.CANCELLED,
            EventType.JOINED,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event of a turn; `number` counts from 0 without gaps and is the resume cursor."""

    number: int
    type: EventType
    data: Mapping[str, Any]
