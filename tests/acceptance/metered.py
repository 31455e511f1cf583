"""Agents whose providers write down each call, for all worker processes in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from agentapi import Agent, register_provider
from agentapi.errors import ProviderUnavailable
from agentapi.providers.offline import OfflineProvider


class Metered(OfflineProvider):
    """Counts its calls."""

    name = "metered"

    async def complete(self, request: Any) -> Any:
        note(self.name)
        return await super().complete(request)


class Slowed(OfflineProvider):
    """Asks the first who calls to come back in a minute."""

    name = "slowed"

    async def complete(self, request: Any) -> Any:
        if note(self.name) == 1:
            raise ProviderUnavailable("slow down", provider="slowed", status=429, retry_after=60)
        return await super().complete(request)


def note(name: str) -> int:
    """Write a call down; returns how many there are of the name."""
    ledger = Path(os.environ["METERED_LEDGER"])
    with ledger.open("a") as file:
        file.write(f"{name}\n")
    return ledger.read_text().split().count(name)


register_provider("metered", Metered)
register_provider("slowed", Slowed)

metered = Agent(name="metered", provider="metered")
slowed = Agent(name="slowed", provider="slowed")
patient = Agent(name="patient", provider=["slowed", "offline"])
