"""Follows the ends of turns from any position."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from typing import Final, TypedDict

from agentapi.stores import Ends, ListStore, TurnEnd
from agentapi.stores.refusals import not_complete
from agentapi.turns import TurnStatus
from orchestrator.blocking import BlockingCalls
from orchestrator.listing import checked, seconds, statuses_of

AT_ONCE: Final = 256
"""Maximum number of ends in one read."""

GATHER: Final = 0.05
"""Seconds between two blocking reads. Each read covers 256 streams, so ends are read in batches."""

LONGEST_WAIT: Final = 5.0
BELL_WAIT: Final = 1.0
"""Maximum seconds that one read blocks: in the caller's thread, and in our own thread, which must
end soon after its producer is closed."""


class EndFilters(TypedDict, total=False):
    """Filters of `Orchestrator.ends`.

    Attributes:
        agent: Name of the agent that the turn was enqueued for.
        tenant_id: The tenant; "" for turns without one.
        user_id: The user; "" for turns without one.
        conversation_id: The conversation.
        status: How the turn ended; one status or several.
    """

    agent: str
    tenant_id: str
    user_id: str
    conversation_id: str
    status: str | TurnStatus | Iterable[str | TurnStatus]


_ENDS: Final = frozenset(EndFilters.__annotations__)


def wanted_end(filters: EndFilters) -> Callable[[TurnEnd], bool]:
    """Build the filter for ends from the caller's filters.

    Raises:
        InvalidInput: A filter is unknown or not valid.
    """
    given = checked(dict(filters), _ENDS)
    status = given.pop("status", None)
    statuses = None if status is None else statuses_of(status)

    def wanted(end: TurnEnd) -> bool:
        alike = all((getattr(end, name) or "") == value for name, value in given.items())
        return alike and (statuses is None or end.status in statuses)

    return wanted


def position_of(after: str | float | datetime | None) -> str | float | None:
    """Convert a position to the form that the store takes.

    Raises:
        InvalidInput: The position is a time that is not valid.
    """
    if after is None or isinstance(after, str):
        return after
    return seconds("after", after)


def follow(
    store: ListStore,
    after: str | float | None,
    timeout: float | None,
    wanted: Callable[[TurnEnd], bool],
) -> Iterator[TurnEnd]:
    """Yield the ends after a position; stop when none arrives for `timeout` seconds.

    Raises:
        StoreUnavailable: Redis is out of reach, or the timeout has passed and a shard of a cluster
            has not answered whether it has more ends.
    """
    quiet_since = time.monotonic()
    while True:
        left = math.inf if timeout is None else quiet_since + timeout - time.monotonic()
        found = store.ends(after, AT_ONCE, max(0.0, min(left, LONGEST_WAIT)))
        after = found.position
        for end in found.ends:
            if wanted(end):
                yield end
                quiet_since = time.monotonic()
        if not found.ends and left <= 0:
            if found.missing is not None:
                raise not_complete(found.missing)
            return
        if 0 < len(found.ends) < AT_ONCE:
            time.sleep(GATHER)


class EndsBell:
    """Wakes any number of followers on an event loop when there are new ends.

    One thread and one connection wait for all followers, and only while there are any.
    """

    def __init__(self, store: ListStore) -> None:
        self._store = store
        self._call = BlockingCalls(1, "agentapi-ends")
        self._waiting: asyncio.Future[Ends] | None = None
        self.waits = 0
        """Number of waits that have begun."""

    async def wait(self, position: str | float | None, waits: int) -> None:
        """Wait for an end, for at most one second.

        Args:
            position: The position after which the follower found no new ends.
            waits: The value of `waits` before the follower looked. If a wait has since begun from a
                later position, the follower must look again.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        if self._waiting is None or self._waiting.done():
            self.waits += 1
            read = self._call(partial(self._store.ends, position, 1, BELL_WAIT))
            self._waiting = asyncio.ensure_future(read)
            # If every follower is gone by then, nobody retrieves its error.
            self._waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        elif waits != self.waits:
            return
        await asyncio.shield(self._waiting)

    def close(self) -> None:
        """Let the thread end after its current wait."""
        self._call.close()


async def follow_async(
    store: ListStore,
    bell: EndsBell,
    call: BlockingCalls,
    after: str | float | None,
    wanted: Callable[[TurnEnd], bool],
) -> AsyncGenerator[TurnEnd]:
    """Yield the ends after a position, forever."""
    while True:
        waits = bell.waits
        found = await call(partial(store.ends, after, AT_ONCE))
        after = found.position
        for end in found.ends:
            if wanted(end):
                yield end
        if not found.ends:
            await bell.wait(after, waits)
        elif len(found.ends) < AT_ONCE:
            await asyncio.sleep(GATHER)
