"""Admission control for model calls: budgets, holds and breakers, shared by the fleet."""

from typing import TYPE_CHECKING

from agentapi.lazy import lazily

if TYPE_CHECKING:
    from agentapi.admission.base import (
        MINUTE,
        Ask,
        BreakerRule,
        Reason,
        Standing,
        Traffic,
        Used,
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
    "Used",
    "Wait",
    "here",
    "local_gate",
]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "agentapi.admission.base": (
            "Ask",
            "BreakerRule",
            "MINUTE",
            "Reason",
            "Standing",
            "Traffic",
            "Used",
            "Wait",
        ),
        "agentapi.admission.gate": (
            "Caller",
            "Permit",
            "ProviderGate",
            "here",
        ),
        "agentapi.admission.in_memory": ("InMemoryTraffic",),
        "agentapi.admission.local": ("local_gate",),
        "agentapi.admission.redis_traffic": ("RedisTraffic",),
    },
)
