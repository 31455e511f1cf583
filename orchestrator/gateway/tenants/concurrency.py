"""Limits the concurrent work of each tenant, so that none keeps Redis or the event loop busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class TenantConcurrency:
    """Gives each tenant a few slots. If none is free, a caller waits."""

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
        # Waiting callers count too, because the semaphore must exist as long as anybody needs it.
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
        # A semaphore without users holds no state. Drop it, or semaphores would accumulate.
        if not self._users[tenant]:
            del self._users[tenant], self._semaphores[tenant]


class RequestSlot:
    """The slot of one request, which may release it before the request ends."""

    def __init__(self, concurrency: TenantConcurrency, tenant: str) -> None:
        self._concurrency = concurrency
        self._tenant = tenant
        self._held = False

    async def acquire(self) -> None:
        """Wait for a slot and take it."""
        await self._concurrency.acquire(self._tenant)
        self._held = True

    def release(self) -> None:
        """Release the slot, unless it was already released."""
        if self._held:
            self._held = False
            self._concurrency.release(self._tenant)
