"""Corrects what the ledger counts, a few conversations at a time, in the background."""

from __future__ import annotations

import asyncio
from typing import Final

from agentapi.errors import AgentAPIError
from agentapi.supervision import Service, Supervisor
from orchestrator.gateway.tenants.ledger import Ledger

PAUSE: Final = 10.0
"""Seconds between two audits."""

AGE: Final = 300_000
"""Milliseconds after an audit during which a conversation is not audited again."""

MAX_CONVERSATIONS: Final = 100
"""Maximum conversations of a tenant in one audit."""


class Auditor:
    """Audits tenants that use this gateway: adds replies, subtracts what has expired."""

    def __init__(self, ledger: Ledger, supervisor: Supervisor, pause: float = PAUSE) -> None:
        """Create the auditor; `start` starts it.

        Args:
            ledger: What to correct.
            supervisor: Restarts the audits if they fail.
            pause: Seconds between two audits.
        """
        self._ledger = ledger
        self._pause = pause
        self._service = supervisor.task("gateway-audit", self._run)

    def start(self) -> None:
        """Start auditing."""
        self._service.start()

    async def aclose(self) -> None:
        """Stop auditing."""
        await self._service.stop()

    async def _run(self, service: Service) -> None:
        while not service.stopping:
            await asyncio.sleep(self._pause)
            for tenant in self._ledger.active():
                await self._audit(tenant)
            service.progress()

    async def _audit(self, tenant: str) -> None:
        try:
            # Nothing was due, so skip the tenant until it stores something again.
            if not await self._ledger.audit(tenant, AGE, MAX_CONVERSATIONS):
                self._ledger.rest(tenant)
        except AgentAPIError:
            # Redis is out of reach or refuses: the next audit finds the same conversations.
            return
