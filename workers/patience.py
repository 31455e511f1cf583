"""Riding out a Redis that is away for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

from agentapi.errors import StoreUnavailable
from workers.logs import line

T = TypeVar("T")

log = logging.getLogger("agentapi.store")

PATIENCE: Final = 60.0
"""Seconds to go on trying. By then another worker may have the turn; the epoch decides."""


def ride_out(
    call: Callable[[], T],
    *,
    give_up: Callable[[], bool] = lambda: False,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Repeat a transition until Redis takes it. Transitions may be repeated safely.

    Args:
        call: The transition.
        give_up: Asked between tries; true ends the patience.
        patience: Seconds.
        sleep: For tests.

    Raises:
        StoreUnavailable: The patience is at its end.
    """
    deadline = time.monotonic() + patience
    delay = 0.1
    told = False
    while True:
        try:
            result = call()
        except StoreUnavailable as error:
            if give_up() or time.monotonic() >= deadline:
                raise
            if not told:
                log.warning(line("store.away", error=error))
                told = True
            sleep(delay)
            delay = min(delay * 2, 1.0)
        else:
            if told:
                log.warning(line("store.back"))
            return result
