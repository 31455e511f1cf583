"""Tool calls that wait without a worker, for a decision or for replies of other turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agentapi.conversation.finish import CUT, FinishReason
from agentapi.conversation.messages import Usage
from agentapi.turns.budget import Limits
from agentapi.turns.client_tools import ClientCall, ClientOutput, Continuation, Segment
from agentapi.turns.model import TurnError, TurnStatus


class Verdict(StrEnum):
    """The decision about a call."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EDITED = "edited"
    """The call is made with arguments that differ from the model's; the model is told."""

    @property
    def is_default(self) -> bool:
        """Whether it can be the decision of a call about which nobody decides in time."""
        return self is not Verdict.EDITED


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """A decision about a call.

    Attributes:
        verdict: Whether the call may be made.
        reason: What the model is told when it may not.
        by: Who decided, in the caller's own words; ``expiry`` when nobody did in time.
        arguments: The arguments that replace the model's when the verdict is `EDITED`, else None.
    """

    verdict: Verdict
    reason: str | None = None
    by: str | None = None
    arguments: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A call that may be made only when somebody approves it.

    Attributes:
        call_id: The model's id of the call.
        tool: Name of the tool.
        arguments: The arguments of the call.
        timeout: Seconds after which `default` becomes the decision; None for no limit.
        default: The decision when nobody decides in time.
        number: The call's place among the calls of its turn.
        schema: JSON schema of the tool's arguments, by which edited ones are checked.
    """

    call_id: str
    tool: str
    arguments: Mapping[str, Any]
    timeout: float | None = None
    default: Verdict = Verdict.REJECTED
    number: int = 0
    schema: Mapping[str, Any] | None = None


class CallKind(StrEnum):
    """What a call waits for."""

    APPROVAL = "approval"
    """A person's decision whether to make it (`TurnHandle.approve`, `reject`)."""
    CLIENT = "client"
    """The output of a client tool (`TurnHandle.answer`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingCall:
    """A call that waits for people or for a client. Times are seconds since 1970.

    Attributes:
        turn_id: The turn that waits: the requested one, or one that it delegated to.
        agent: The agent that wants to make the call.
        expires_at: When `default` becomes the decision, or the call of a client tool gets an error
            as its output; None for never.
        default: The decision if nobody decides in time; without meaning for client tools.
        schema: JSON schema of the tool's arguments; None if an older release asked the question,
            and for client tools.
        kind: What it waits for.
    """

    turn_id: str
    conversation_id: str
    agent: str
    call_id: str
    tool: str
    arguments: Mapping[str, Any]
    expires_at: float | None
    default: Verdict
    schema: Mapping[str, Any] | None = None
    kind: CallKind = CallKind.APPROVAL


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildTurn:
    """A turn that another turn's tool call waits for.

    Attributes:
        call_id: The call. Its children are listed in the order of their replies.
        timeout: Seconds that it may take, waiting included; None for as long as its parent.
        lasting: Whether its conversation outlives the parent turn.
        listed: Whether the call's result is a list of replies.
        budget: What it may spend, with all its child turns.
        number: The place of its call among the calls of the parent turn.
        context: Its own context; None when it has none of its own.
        inherits: Whether it has its parent's context when it has none of its own.
    """

    call_id: str
    turn_id: str
    conversation_id: str
    agent: str
    input: str
    timeout: float | None = None
    lasting: bool = False
    listed: bool = False
    budget: Limits | None = None
    number: int = 0
    context: Mapping[str, Any] | None = None
    inherits: bool = True

    def context_of(self, parents: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The context that it runs with, given its parent's."""
        if self.context is not None:
            return self.context
        return parents if self.inherits else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildReply:
    """How a child turn ended, and what it spent with all its own child turns."""

    turn_id: str
    status: TurnStatus
    text: str = ""
    error: TurnError | None = None
    usage: Usage = field(default_factory=Usage)
    steps: int = 0
    finish_reason: FinishReason = FinishReason.STOP

    @property
    def shown(self) -> str:
        """The text for the turn that asked, which says so if it is not complete."""
        if self.finish_reason not in CUT:
            return self.text
        return f"{self.text}\n[this reply is not complete: {self.finish_reason.value}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldCalls:
    """What a turn's calls wait for when it is suspended.

    Attributes:
        questions: Calls that wait for a decision.
        children: Turns whose replies are awaited.
        client: Calls that the client makes.
        responses: How many responses the model has given in the turn, rejected ones left out.
        usage: Tokens of the turn so far.
    """

    questions: Sequence[Question] = ()
    children: Sequence[ChildTurn] = ()
    client: Sequence[ClientCall] = ()
    responses: int = 0
    usage: Usage = field(default_factory=Usage)

    @property
    def segment(self) -> Segment | None:
        """The end of a part of the turn; None when it asks neither its client nor people."""
        if not self.client and not self.questions:
            return None
        return Segment(
            responses=self.responses,
            client=tuple(call.call_id for call in self.client),
            approvals=tuple(question.call_id for question in self.questions),
            usage=self.usage,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """Answers to calls of a turn, given together.

    Attributes:
        outputs: Outputs of client tools by call id.
        decisions: Decisions by call id.
        continuation: What changes for the rest of the turn.
    """

    outputs: Mapping[str, ClientOutput] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    continuation: Continuation | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CallBook:
    """What became of a turn's calls that waited.

    Attributes:
        decisions: Decisions by call id.
        begun_before: Approved calls that were handed to an earlier attempt, which may have made
            them.
        children: Child turns by call id, in the order of their replies.
        replies: Replies by the child's turn id.
        outputs: Outputs of client tools by call id.
    """

    decisions: Mapping[str, Decision] = field(default_factory=dict)
    begun_before: frozenset[str] = frozenset()
    children: Mapping[str, Sequence[ChildTurn]] = field(default_factory=dict)
    replies: Mapping[str, ChildReply] = field(default_factory=dict)
    outputs: Mapping[str, ClientOutput] = field(default_factory=dict)

    def answered(self, call_id: str) -> bool:
        """Whether all children of a call have replied."""
        children = self.children.get(call_id, ())
        return bool(children) and all(child.turn_id in self.replies for child in children)
