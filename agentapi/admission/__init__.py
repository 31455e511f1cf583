"""Admission control for model calls: budgets, holds and breakers, shared by the fleet."""

from agentapi.admission.base import (
    MINUTE,
    Ask,
    BreakerRule,
    Reason,
    Standing,
    Traffic,
    Wait,
)
from agentapi.admission.gate import Caller, Permit, ProviderGate, here
from agentapi.admission.in_memory import InMemoryTraffic
from agentapi.admission.local import local_gate
from agentapi.admission.redis_traffic import RedisTraffic

__all__ = [
    "MINUTE",
    "Ask",
    "BreakerRule",
    "Caller",
    "InMemoryTraffic",
    "Permit",
    "ProviderGate",
    "Reason",
    "RedisTraffic",
    "Standing",
    "Traffic",
    "Wait",
    "here",
    "local_gate",
]
