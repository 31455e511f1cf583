"""Limits the streams and waiting requests of each tenant in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.gateway.http.errors import RateLimited


class StreamSlots:
    """Counts open streams and waiting requests, each of which costs a connection and memory."""

    def __init__(self, limit: int) -> None:
        """Begin with nothing open.

        Args:
            limit: Slots of each tenant; 0 for no limit.
        """
        self._limit = limit
        # Needs no lock: only the event loop uses it, and nothing is awaited in between.
        self._taken: dict[str, int] = {}

    def open(self) -> int:
        """The number of occupied slots."""
        # Copy, because another thread calls this.
        return sum(list(self._taken.values()))

    @contextmanager
    def hold(self, tenant: str) -> Iterator[None]:
        """Hold a slot.

        Raises:
            RateLimited: All of the tenant's slots are taken.
        """
        taken = self._taken.get(tenant, 0)
        if self._limit and taken >= self._limit:
            raise RateLimited(
                f"{taken} streams and waiting requests of this key's tenant are open: close some, "
                "use background=true, or ask an operator to raise AGENTAPI_GATEWAY_STREAMS; "
                "nothing was accepted",
                code="streams_exceeded",
                retry_after=1,
            )
        self._taken[tenant] = taken + 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]
