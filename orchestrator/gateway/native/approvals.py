"""Waiting calls in the native API: for a person's decision, or for a client's output."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from agentapi.turns import Answers, ClientOutput, PendingCall, Verdict
from agentapi.turns.calls import Decision
from orchestrator.gateway.dependencies import TurnId, View
from orchestrator.gateway.http.openapi import errors
from orchestrator.gateway.http.request_body import StrictRoute
from orchestrator.gateway.native.turns import TurnView, turn_view

router = APIRouter(tags=["native"], route_class=StrictRoute)


class DecideCall(BaseModel):
    """A decision about a tool call. It is final; repeating the same decision changes nothing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    verdict: Literal["approved", "rejected"]
    reason: Annotated[
        str | None,
        Field(max_length=4096, description="The reason for a rejection; shown to the model."),
    ] = None
    by: Annotated[
        str | None, Field(max_length=512, description="Who decided; stored with the decision.")
    ] = None
    arguments: Annotated[
        dict[str, Any] | None,
        Field(description="All arguments of an approved call, in place of the model's."),
    ] = None

    @model_validator(mode="after")
    def _approved(self) -> DecideCall:
        if self.arguments is not None and self.verdict != "approved":
            raise ValueError("arguments can only be given when the call is approved")
        return self

    @property
    def decision(self) -> Decision:
        """The decision as it is stored."""
        edited = self.arguments is not None
        return Decision(
            verdict=Verdict.EDITED if edited else Verdict(self.verdict),
            reason=self.reason if self.verdict == "rejected" else None,
            by=self.by,
            arguments=self.arguments,
        )


class CallOutput(BaseModel):
    """The output of a client tool's call. It is final; repeating the same output changes
    nothing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    output: Annotated[str, Field(description="The output; shown to the model.")]
    is_error: Annotated[bool, Field(description="Whether the call failed.")] = False


class PendingCallView(BaseModel):
    """A waiting call. Times are seconds since 1970."""

    call_id: str
    turn_id: Annotated[str, Field(description="The turn itself, or a turn that it waits for.")]
    agent: str
    tool: str
    arguments: dict[str, Any]
    expires_at: float | None
    default: Annotated[
        str, Field(description="The decision that applies if nobody decides in time.")
    ]
    kind: Annotated[str, Field(description="What it waits for: `approval` or `client`.")]


class PendingCalls(BaseModel):
    """All waiting tool calls of a turn."""

    turn_id: str
    calls: list[PendingCallView]


def call_view(call: PendingCall) -> PendingCallView:
    """A tool call as its tenant sees it."""
    return PendingCallView(
        call_id=call.call_id,
        turn_id=call.turn_id,
        agent=call.agent,
        tool=call.tool,
        arguments=dict(call.arguments),
        expires_at=call.expires_at,
        default=call.default.value,
        kind=call.kind.value,
    )


@router.get("/turns/{turn_id}/calls", responses=errors(404))
async def pending_calls(turn_id: TurnId, view: View) -> PendingCalls:
    """Waiting calls: the turn's own, and those of turns that it waits for."""
    calls = await view.pending(turn_id)
    return PendingCalls(turn_id=turn_id, calls=[call_view(call) for call in calls])


@router.post("/turns/{turn_id}/calls/{call_id}", responses=errors(404, 409))
async def decide_call(turn_id: TurnId, call_id: str, body: DecideCall, view: View) -> TurnView:
    """Approve a tool call, optionally with other arguments, or reject it. The turn continues."""
    await view.decide(turn_id, call_id, body.decision)
    return turn_view(view, await view.turn(turn_id))


@router.post("/turns/{turn_id}/calls/{call_id}/output", responses=errors(404, 409))
async def answer_call(turn_id: str, call_id: str, body: CallOutput, view: View) -> TurnView:
    """Give the output of a client tool's call. The turn continues when no such call is waiting."""
    output = ClientOutput(text=body.output, is_error=body.is_error)
    await view.answer(turn_id, Answers(outputs={call_id: output}))
    return turn_view(view, await view.turn(turn_id))
