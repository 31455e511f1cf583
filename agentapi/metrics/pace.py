"""What this process did in the last minute, for views of the fleet.

It is counted whether or not the process serves metrics: a few additions for each turn and model
call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

WINDOW: Final = 60
"""Seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """The work done in a period.

    Attributes:
        ended: Turns that ended, in any way.
        failed: Turns that failed, which `ended` includes.
        model_calls: Model calls that were answered.
        tokens: Tokens of these calls, as their providers counted them.
        cost: Their cost, in the unit of the setting `prices`.
    """

    ended: int = 0
    failed: int = 0
    model_calls: int = 0
    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Done) -> Done:
        sums: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in _NAMES}
        return Done(**sums)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Done:
        """Read plain data; missing or invalid values count as 0."""
        given = data if isinstance(data, Mapping) else {}
        numbers: dict[str, Any] = {
            name: given[name] for name in _NAMES if isinstance(given.get(name), int | float)
        }
        return cls(**numbers)


_NAMES: Final = tuple(field.name for field in fields(Done))


class Pace:
    """Adds up work, second by second. Safe to share between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._total = _Sums()
        # One for each second of the window, reused after that.
        self._seconds = [_Sums() for _ in range(WINDOW)]

    def add(
        self,
        *,
        ended: int = 0,
        failed: int = 0,
        model_calls: int = 0,
        tokens: int = 0,
        cost: float = 0.0,
    ) -> None:
        """Add work that was done now; see `Done`."""
        second = int(self._clock())
        with self._lock:
            sums = self._seconds[second % WINDOW]
            if sums.second != second:
                sums = self._seconds[second % WINDOW] = _Sums(second)
            for each in (sums, self._total):
                each.ended += ended
                each.failed += failed
                each.model_calls += model_calls
                each.tokens += tokens
                each.cost += cost

    def minute(self) -> Done:
        """The work of the last minute; the current second counts as a whole one."""
        first = int(self._clock()) - WINDOW + 1
        with self._lock:
            kept = [sums.done() for sums in self._seconds if sums.second >= first]
        return sum(kept, start=Done())

    def total(self) -> Done:
        """The work since the process started."""
        with self._lock:
            return self._total.done()


class _Sums:
    """A `Done` that grows."""

    __slots__ = ("cost", "ended", "failed", "model_calls", "second", "tokens")

    def __init__(self, second: int = -WINDOW) -> None:
        self.second = second
        self.ended = self.failed = self.model_calls = self.tokens = 0
        self.cost = 0.0

    def done(self) -> Done:
        return Done(**{name: getattr(self, name) for name in _NAMES})


pace: Final = Pace()
"""That of this process."""
