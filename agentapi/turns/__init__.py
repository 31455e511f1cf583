"""What a turn is: its data, its states, its steps and its events."""

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
    TurnStatus,
)
from agentapi.turns.steps import ModelStep, Step, ToolStep, step_from_json, step_to_json

__all__ = [
    "TERMINAL",
    "TRANSITIONS",
    "Event",
    "EventType",
    "ModelStep",
    "NewTurn",
    "OnAbort",
    "OnBusy",
    "Step",
    "ToolStep",
    "Turn",
    "TurnError",
    "TurnResult",
    "TurnStatus",
    "step_from_json",
    "step_to_json",
]
