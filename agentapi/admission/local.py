"""The gate of agents that run on their own: one per event loop, as their clients are."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import Final

from agentapi.admission.gate import ProviderGate
from agentapi.admission.in_memory import InMemoryTraffic
from agentapi.settings import ProviderLimits

_gates: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ProviderGate]] = (
    weakref.WeakKeyDictionary()
)


def local_gate(limits: Mapping[str, ProviderLimits]) -> ProviderGate:
    """The running event loop's gate.

    Args:
        limits: Limits by provider name. The limits of the first call stay in force for this loop.

    Raises:
        RuntimeError: No event loop is running.
    """
    loop = asyncio.get_running_loop()
    # Weak keys: a gate is freed with its loop, for example when `asyncio.run` returns.
    if loop not in _gates:
        _gates[loop] = ProviderGate(InMemoryTraffic(), limits)
    return _gates[loop]
