"""Turns: their data, states, steps and events."""

from agentapi.turns.calls import (
    CallBook,
    ChildReply,
    ChildTurn,
    Decision,
    HeldCalls,
    PendingCall,
    Question,
    Verdict,
)
from agentapi.turns.context import TurnContext
from agentapi.turns.kinds import TurnKind
from agentapi.turns.model import (
    TERMINAL,
    TRANSITIONS,
    Event,
    EventType,
    NewTurn,
    OnAbort,
    OnBusy,
    Turn,
    TurnError,
    TurnResult,
    TurnSpec,
    TurnStatus,
)
from agentapi.turns.request_options import RequestedOutput, RequestOptions, Sampling
from agentapi.turns.request_policy import RequestPolicy, RequestRefused
from agentapi.turns.steps import ModelStep, Step, ToolStep, step_from_json, step_to_json
from agentapi.turns.waiting import WaitingFor, WaitKind

__all__ = [
    "TERMINAL",
    "TRANSITIONS",
    "CallBook",
    "ChildReply",
    "ChildTurn",
    "Decision",
    "Event",
    "EventType",
    "HeldCalls",
    "ModelStep",
    "NewTurn",
    "OnAbort",
    "OnBusy",
    "PendingCall",
    "Question",
    "RequestOptions",
    "RequestPolicy",
    "RequestRefused",
    "RequestedOutput",
    "Sampling",
    "Step",
    "ToolStep",
    "Turn",
    "TurnContext",
    "TurnError",
    "TurnKind",
    "TurnResult",
    "TurnSpec",
    "TurnStatus",
    "Verdict",
    "WaitKind",
    "WaitingFor",
    "step_from_json",
    "step_to_json",
]
