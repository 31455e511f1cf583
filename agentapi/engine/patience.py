"""How long a call waits for an unavailable provider or tool server.

First the worker makes a few quick retries. Then the turn parks, with growing waits, until its
patience ends. A turn that cannot park, as in `Agent.run`, fails after the quick retries.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from agentapi.errors import (
    NoProviderAvailable,
    ProviderAway,
    ProviderHeld,
    ProviderUnavailable,
    ToolServerUnavailable,
)
from agentapi.signals import TurnParked
from agentapi.turns.waiting import WaitKind

T = TypeVar("T")

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
LONGEST_SPREAD: Final = 15.0

FIRST_PARK: Final = 5.0
LONGEST_PARK: Final = 120.0
"""The first and the longest wait of a parked turn in seconds, before a jitter of a quarter. A
provider that recovers wakes its waiting turns earlier."""

DEFAULT_PATIENCE: Final = 1800.0

_MOST_DOUBLINGS: Final = 30


def retry_delay(error: ProviderUnavailable, failures: int) -> float:
    """Seconds to wait after the given number of failures.

    The server's `retry-after` if there is one; otherwise exponential from 0.5 s with jitter. With
    several providers, the earliest time counts.
    """
    if isinstance(error, NoProviderAvailable):
        return min(retry_delay(cause, failures) for cause in error.causes)
    if error.retry_after is not None:
        return max(error.retry_after, 0.0)
    # Jitter, because a failing provider fails many turns at the same time.
    ceiling = min(FIRST_DELAY * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), LONGEST_DELAY)
    return random.uniform(ceiling / 2, ceiling)


def spread(delay: float) -> float:
    """The delay plus up to a quarter, so that waiting turns do not all wake together."""
    return delay + random.uniform(0, min(delay / 4, LONGEST_SPREAD))


def park_delay(parks: int) -> float:
    """Seconds of a turn's wait with the number `parks`, counted from 1, with a jitter of a
    quarter."""
    ceiling = min(FIRST_PARK * 2.0 ** min(max(parks, 1) - 1, _MOST_DOUBLINGS), LONGEST_PARK)
    return random.uniform(0.75 * ceiling, 1.25 * ceiling)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How a call is repeated.

    Attributes:
        max_retries: How many quick retries to make before the turn parks.
        failures: Number of failures in earlier attempts of the turn.
        failing_for: Seconds since the first of these failures.
        patience: Seconds from the first failure after which the turn fails; with 0 it fails after
            the quick retries.
        park_after: Waits longer than this, in seconds, park the turn; None for a turn that cannot
            park and fails after the quick retries.
    """

    max_retries: int = 3
    failures: int = 0
    failing_for: float = 0.0
    patience: float = DEFAULT_PATIENCE
    park_after: float | None = None


def _causes(error: ProviderUnavailable) -> tuple[ProviderUnavailable, ...]:
    return error.causes if isinstance(error, NoProviderAvailable) else (error,)


async def _nothing() -> None:
    pass


async def ride_out(
    attempt: Callable[[], Awaitable[T]],
    retry: RetryPolicy,
    *,
    again: Callable[[], Awaitable[None]] = _nothing,
) -> T:
    """Make a call to a provider or tool server, with retries.

    Args:
        attempt: Makes the call.
        retry: How to repeat it.
        again: Called before each further attempt in this process.

    Raises:
        ProviderError: The last failure.
        TurnParked: The turn must try again later, without a worker meanwhile.
    """
    tries = _Tries(retry)
    while True:
        try:
            return await attempt()
        except ProviderUnavailable as error:
            delay = tries.failed(error)
        # Withdraw the text before the wait, so that readers do not see half an answer meanwhile.
        await again()
        await asyncio.sleep(delay)


class _Tries:
    """The failures of one call, over all attempts of its turn."""

    def __init__(self, retry: RetryPolicy) -> None:
        self._retry = retry
        self._failures = retry.failures
        known = retry.failures > 0 or retry.failing_for > 0
        self._first = time.monotonic() - retry.failing_for if known else None

    def failed(self, error: ProviderUnavailable) -> float:
        """Record a failure.

        Returns:
            Seconds until the next attempt in this process.

        Raises:
            ProviderUnavailable: There is no further attempt.
            TurnParked: The next attempt is later.
        """
        causes, retry = _causes(error), self._retry
        # A provider on hold has not been called, so it may still answer.
        held = [isinstance(cause, ProviderHeld) for cause in causes]
        self._failures += not all(held)
        # The fleet's own budget recovers by itself, so waiting for it is not an outage.
        budgets = [isinstance(cause, ProviderHeld) and cause.budget for cause in causes]
        if self._first is None and not all(budgets):
            self._first = time.monotonic()
        quick = self._failures <= retry.max_retries
        if retry.park_after is None:
            if not quick and not any(held):
                raise error
            return spread(retry_delay(error, self._failures))
        here = self._delay_here(error, quick=quick or any(budgets))
        if here is not None and here <= retry.park_after:
            return here
        delay = here if any(budgets) and here is not None else self._delay_parked(error, here)
        raise self._parked(error, delay) from error

    def _delay_here(self, error: ProviderUnavailable, *, quick: bool) -> float | None:
        """Seconds until this worker tries again; None if the turn must park."""
        probe = _probe(error)
        if probe is not None:
            return probe if quick or self._left() > 0 else None
        # The fleet knows that the provider is unavailable, so quick retries would not reach it.
        away = all(isinstance(cause, ProviderAway) for cause in _causes(error))
        return spread(retry_delay(error, self._failures)) if quick and not away else None

    def _delay_parked(self, error: ProviderUnavailable, here: float | None) -> float:
        """Seconds until the next attempt of the parked turn; raises if its patience has ended."""
        causes, left = _causes(error), self._left()
        asked = [c.retry_after or 0.0 for c in causes if not isinstance(c, ProviderAway)]
        wish = min(asked, default=0.0)
        if left <= 0 or wish > left:
            raise _over(error, self._retry.patience, self._lasted(), self._failures, wish)
        delay = here
        if delay is None:
            earliest = min(cause.retry_after or 0.0 for cause in causes)
            parks = self._failures - self._retry.max_retries
            delay = max(spread(earliest), park_delay(parks))
        # The last attempt is at the end of the patience, not after it.
        return min(delay, max(left, wish))

    def _left(self) -> float:
        return self._retry.patience - self._lasted()

    def _lasted(self) -> float:
        return 0.0 if self._first is None else time.monotonic() - self._first

    def _parked(self, error: ProviderUnavailable, delay: float) -> TurnParked:
        kind, names = _sources(error)
        return TurnParked(
            f"next attempt to reach {error.source} in {delay:.0f} s",
            delay=delay,
            # Stored with the parked turn, so that its patience covers all attempts together.
            failures=self._failures,
            lasted=None if self._first is None else self._lasted(),
            kind=kind,
            names=names,
        )


def _probe(error: ProviderUnavailable) -> float | None:
    """Seconds until the turn must probe the provider, if it is the one to do so."""
    found = [c.probe_after for c in _causes(error) if c.probe_after is not None]
    return min(found, default=None)


def _sources(error: ProviderUnavailable) -> tuple[WaitKind, tuple[str, ...]]:
    causes = _causes(error)
    if isinstance(causes[0], ToolServerUnavailable):
        return WaitKind.TOOL_SERVER, (causes[0].server,)
    # In the order of the agent's providers, without duplicates.
    names = dict.fromkeys(cause.provider for cause in causes if cause.provider)
    return WaitKind.PROVIDER, tuple(names)


def _over(
    error: ProviderUnavailable, patience: float, lasted: float, failures: int, wish: float
) -> ProviderUnavailable:
    """The error of a turn whose patience has ended."""
    if patience <= 0:
        return error
    if lasted < patience:
        left = patience - lasted
        why = f"asked to wait {wish:.0f} s, longer than the {left:.0f} s that were left"
    else:
        times = "once" if failures == 1 else f"{failures} times"
        why = f"was unavailable for {lasted:.0f} s and was tried {times}"
    return ProviderUnavailable(
        f"{error.source} {why} (patience: {patience:.0f} s). Run the turn again with retry() once "
        "it is back. AGENTAPI_PROVIDER_PATIENCE and Agent(patience=...) set the patience. The last "
        f"failure: {error}",
        provider=error.provider,
        status=error.status,
    )
