"""The gate of agents that run by themselves: one an event loop, as their clients are."""

from __future__ import annotations

import asyncio
import weakref
from typing import Final

from agentapi.admission.gate import ProviderGate
from agentapi.admission.in_memory import InMemoryTraffic
from agentapi.settings import load_settings

_gates: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ProviderGate]] = (
    weakref.WeakKeyDictionary()
)


def local_gate() -> ProviderGate:
    """The running event loop's gate; reads the limits when it is made.

    Raises:
        ConfigurationError: The settings are not valid.
        RuntimeError: No event loop is running.
    """
    loop = asyncio.get_running_loop()
    if loop not in _gates:
        _gates[loop] = ProviderGate(InMemoryTraffic(), load_settings().provider_limits)
    return _gates[loop]
