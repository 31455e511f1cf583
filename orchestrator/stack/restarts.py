"""The delay before a worker process that ended is restarted."""

from __future__ import annotations

from typing import Final

FIRST_DELAY: Final = 1.0
"""Seconds before a process that ended is restarted. They double each time one ends early."""

MAX_DELAY: Final = 30.0

SETTLED_AFTER: Final = 15.0
"""Seconds after which a process counts as started successfully."""


class RestartDelay:
    """The delay before the next start, which grows while processes end early.

    Attributes:
        early: How many processes in a row have ended early.
    """

    def __init__(self) -> None:
        self.early = 0

    def after(self, lived: float) -> float:
        """Seconds to wait after a process that ended `lived` seconds after its start."""
        self.early = self.early + 1 if lived < SETTLED_AFTER else 1
        # The exponent is bounded too, because processes may end early for days.
        return min(FIRST_DELAY * 2.0 ** min(self.early - 1, 16), MAX_DELAY)
