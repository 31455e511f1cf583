"""A few lanes for each tenant's long reads, so that no tenant's keep Redis or the loop busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Lanes:
    """Lets so many steps of one tenant run at once; others of it wait their turn."""

    def __init__(self, width: int) -> None:
        """Make them.

        Args:
            width: Steps of one tenant at once.
        """
        self._width = width
        self._lanes: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def lane(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a lane and hold it."""
        lane = self._lanes.setdefault(tenant, asyncio.Semaphore(self._width))
        self._users[tenant] = self._users.get(tenant, 0) + 1
        try:
            async with lane:
                yield
        finally:
            self._users[tenant] -= 1
            if not self._users[tenant]:
                del self._users[tenant], self._lanes[tenant]
