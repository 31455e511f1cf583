"""Limits what one tenant does at the same time, so that none keeps Redis or the event loop busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class TenantConcurrency:
    """Gives each tenant a few slots; a caller that finds none free waits for one."""

    def __init__(self, limit: int) -> None:
        """Begin with all slots free.

        Args:
            limit: Slots of each tenant.
        """
        self._limit = limit
        self._semaphores: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    async def acquire(self, tenant: str) -> None:
        """Wait for a slot and take it."""
        semaphore = self._semaphores.setdefault(tenant, asyncio.Semaphore(self._limit))
        # Counted while waiting too: the semaphore must stay while anybody needs it.
        self._users[tenant] = self._users.get(tenant, 0) + 1
        try:
            await semaphore.acquire()
        except BaseException:
            self._forget(tenant)
            raise

    def release(self, tenant: str) -> None:
        """Give a slot back."""
        self._semaphores[tenant].release()
        self._forget(tenant)

    @asynccontextmanager
    async def slot(self, tenant: str) -> AsyncIterator[None]:
        """Hold a slot."""
        await self.acquire(tenant)
        try:
            yield
        finally:
            self.release(tenant)

    def _forget(self, tenant: str) -> None:
        self._users[tenant] -= 1
        # A semaphore without users holds no state: drop it, or tenants would pile up.
        if not self._users[tenant]:
            del self._users[tenant], self._semaphores[tenant]


class RequestSlot:
    """The slot of one request, which may give it back before the request has ended."""

    def __init__(self, concurrency: TenantConcurrency, tenant: str) -> None:
        self._concurrency = concurrency
        self._tenant = tenant
        self._held = False

    async def acquire(self) -> None:
        """Wait for a slot and take it."""
        await self._concurrency.acquire(self._tenant)
        self._held = True

    def release(self) -> None:
        """Give the slot back, unless that was done already."""
        if self._held:
            self._held = False
            self._concurrency.release(self._tenant)
