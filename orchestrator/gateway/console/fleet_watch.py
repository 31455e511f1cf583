"""Reads the fleet for the console: once for all viewers, and only while there are any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from agentapi.errors import AgentAPIError
from agentapi.stores import TurnCount, TurnStore
from agentapi.supervision import Service, Supervisor
from orchestrator.fleet import FleetReader, FleetSnapshot
from orchestrator.gateway.settings import GatewaySettings

PAUSE: Final = 1.0
"""Seconds between two readings. A reading takes another second, for the workers' answers."""

LOOKED_AT: Final = 20.0
"""Seconds for which the fleet is watched after a page was requested."""

SPANS: Final = 30
SPAN: Final = 120.0
"""Number of intervals in the charts, and their length in seconds."""

_COUNTED: Final = 10.0
"""Seconds for which counts of turns are cached."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetLook:
    """The fleet as its viewers see it.

    Attributes:
        snapshot: The fleet.
        asked: Whether the workers were asked recently; otherwise they are being asked.
        counts: Accepted turns, oldest span first; empty if they cannot be counted.
    """

    snapshot: FleetSnapshot
    asked: bool
    counts: Sequence[TurnCount] = ()


@dataclass(slots=True)
class _Counts:
    """Counts, and their time by the clock of this process."""

    found: Sequence[TurnCount] = ()
    at: float = field(default=float("-inf"))


class FleetWatch:
    """Watches the fleet while it has viewers."""

    def __init__(self, settings: GatewaySettings, store: TurnStore, supervisor: Supervisor) -> None:
        """Create the watch; nothing is read yet.

        Args:
            settings: Addresses of Redis and the broker.
            store: The turn store.
            supervisor: Restarts the watching if it fails.
        """
        self._store = store
        self._reader = FleetReader(settings, store)
        # A dedicated thread: asking the workers takes a second.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="agentapi-fleet")
        self._service = supervisor.task("gateway-fleet", self._run)
        self._looked = asyncio.Event()
        self._looked_at = float("-inf")
        self._first = asyncio.Lock()
        self._watching = False
        self._latest: FleetLook | None = None
        self._counts = _Counts()

    def start(self) -> None:
        """Wait for viewers."""
        self._service.start()

    async def aclose(self) -> None:
        """Stop watching."""
        await self._service.stop()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._reader.close)
        self._thread.shutdown(wait=False)

    async def look(self) -> FleetLook:
        """The latest snapshot of the fleet. The first viewer does not wait for the workers."""
        self._looked_at = time.monotonic()
        async with self._first:
            look = self._latest
            if look is None or not self._watching:
                snapshot = await self._in_thread(partial(self._read, ask_workers=False))
                look = self._latest = FleetLook(
                    snapshot=snapshot, asked=False, counts=self._counts.found
                )
                self._watching = True
        self._looked.set()
        return look

    async def _run(self, service: Service) -> None:
        while not service.stopping:
            await self._looked.wait()
            self._looked.clear()
            while time.monotonic() - self._looked_at < LOOKED_AT:
                snapshot = await self._in_thread(partial(self._read, ask_workers=True))
                self._latest = FleetLook(snapshot=snapshot, asked=True, counts=self._counts.found)
                service.progress()
                await asyncio.sleep(PAUSE)
            self._watching = False

    async def _in_thread(self, read: Callable[[], FleetSnapshot]) -> FleetSnapshot:
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    def _read(self, *, ask_workers: bool) -> FleetSnapshot:
        """In the thread: ask Redis, and perhaps the workers."""
        snapshot = self._reader.read(ask_workers=ask_workers)
        if time.monotonic() - self._counts.at > _COUNTED:
            self._count()
        return snapshot

    def _count(self) -> None:
        now = time.time()
        times = [now - SPAN * (SPANS - number) for number in range(SPANS)]
        try:
            # The last span has no end, because the clocks of this machine and of Redis differ a
            # little.
            found = self._store.lists.counts([*times, now + SPAN])
        except AgentAPIError:
            # Redis is unreachable, as the snapshot shows, or lists are off.
            found = ()
        self._counts = _Counts(found=found, at=time.monotonic())
