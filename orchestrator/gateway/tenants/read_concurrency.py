"""Limits the long reads of each tenant, so that none keeps Redis or the event loop busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ReadConcurrency:
    """Runs a few steps of one tenant at the same time; the tenant's other steps wait."""

    def __init__(self, limit: int) -> None:
        """Begin with nothing running.

        Args:
            limit: Steps of one tenant that may run at the same time.
        """
        self._limit = limit
        self._semaphores: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def slot(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a slot and hold it."""
        semaphore = self._semaphores.setdefault(tenant, asyncio.Semaphore(self._limit))
        self._users[tenant] = self._users.get(tenant, 0) + 1
        try:
            async with semaphore:
                yield
        finally:
            self._users[tenant] -= 1
            # A semaphore without users holds no state: drop it, or tenants would pile up.
            if not self._users[tenant]:
                del self._users[tenant], self._semaphores[tenant]
