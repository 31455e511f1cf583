"""What a fleet shares about its providers: budgets, holds and breakers."""

from agentapi.traffic.base import (
    MINUTE,
    Ask,
    BreakerRule,
    Reason,
    Standing,
    Traffic,
    Wait,
)
from agentapi.traffic.gate import Caller, Permit, ProviderGate, here
from agentapi.traffic.in_memory import InMemoryTraffic
from agentapi.traffic.local import local_gate
from agentapi.traffic.redis_traffic import RedisTraffic

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
