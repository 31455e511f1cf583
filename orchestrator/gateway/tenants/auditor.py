"""Looks at the conversations of tenants that use this gateway, a few at a time."""

from __future__ import annotations

import asyncio
from typing import Final

from agentapi.errors import AgentAPIError
from agentapi.supervision import Service, Supervisor
from orchestrator.gateway.tenants.ledger import Ledger

PAUSE: Final = 10.0
"""Seconds between two looks."""

AGE: Final = 300_000
"""Milliseconds for which a conversation that was looked at is left alone."""

MOST: Final = 100
"""Conversations of a tenant in one look."""


class Auditor:
    """Corrects what is counted of tenants' bytes: replies count, what expired does not."""

    def __init__(self, ledger: Ledger, supervisor: Supervisor, pause: float = PAUSE) -> None:
        """Make one; `start` begins.

        Args:
            ledger: What is counted.
            supervisor: Keeps it running.
            pause: Seconds between two looks.
        """
        self._ledger = ledger
        self._pause = pause
        self._service = supervisor.task("gateway-audit", self._run)

    def start(self) -> None:
        """Begin to look."""
        self._service.start()

    async def aclose(self) -> None:
        """Look no more."""
        await self._service.stop()

    async def _run(self, service: Service) -> None:
        while not service.stopping:
            await asyncio.sleep(self._pause)
            for tenant in self._ledger.active():
                await self._look(tenant)
            service.progress()

    async def _look(self, tenant: str) -> None:
        try:
            if not await self._ledger.audit(tenant, AGE, MOST):
                self._ledger.rest(tenant)
        except AgentAPIError:
            # Redis is away, or refuses: the next look finds the same.
            return
