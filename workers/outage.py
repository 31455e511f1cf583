"""Waiting for an unreachable Redis, and logging each outage once."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from agentapi.errors import AgentAPIError, StoreUnavailable
from agentapi.logs import line

T = TypeVar("T")

log = logging.getLogger("agentapi.store")

PATIENCE: Final = 60.0
"""Seconds to keep trying. Another worker may own the turn by then; the epoch fences this one
off."""


QUIET: Final = 30.0
"""Seconds within which repeated short outages are logged only once."""


class Outage:
    """Whether Redis is unreachable for this process. All threads report to it; one line is logged.

    A Redis that flickers (one that is out of memory refuses some writes and takes others) counts as
    one outage: one that begins within `QUIET` of the last line is logged only if it lasts longer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._told = False
        self._last_line = -math.inf
        self._lock = threading.Lock()

    @property
    def lasts(self) -> bool:
        """Whether Redis is unreachable now."""
        return self._since is not None

    def begins(self, error: AgentAPIError) -> None:
        """Record that a call failed."""
        with self._lock:
            now = self._clock()
            if self._since is None:
                self._since = now
            if not self._told and now - self._last_line >= QUIET:
                self._told = True
                self._last_line = now
                log.warning(line("store.away", error=error))

    def ends(self) -> None:
        """Record that a call succeeded."""
        with self._lock:
            if self._since is None:
                return
            now = self._clock()
            if self._told:
                self._last_line = now
                log.warning(line("store.back", seconds=round(now - self._since, 1)))
            self._since = None
            self._told = False


def ride_out(
    call: Callable[[], T],
    *,
    outage: Outage,
    give_up: Callable[[], bool] = lambda: False,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Repeat a transition until Redis takes it. Repeating is safe for every transition.

    Args:
        call: The transition.
        outage: Logs that Redis is unreachable, and that it is back.
        give_up: Asked after each failure; if true, no further attempt is made.
        patience: Seconds to keep trying.
        sleep: For tests.

    Raises:
        StoreUnavailable: Redis was unreachable for too long, or `give_up` returned true.
    """
    deadline = time.monotonic() + patience
    delay = 0.1
    while True:
        try:
            result = call()
        # Other errors are not retried: a lost lease, for example, is an answer, not an outage.
        except StoreUnavailable as error:
            outage.begins(error)
            if give_up() or time.monotonic() >= deadline:
                raise
            sleep(delay)
            delay = min(delay * 2, 1.0)
        else:
            outage.ends()
            return result
