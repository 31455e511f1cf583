"""What a fleet knows of its providers, as one small seam with two implementations behind it.

Three things are kept for each provider. A **budget**: what was asked of it within the last minute,
in requests and tokens. A **hold**: until when it asked the fleet to wait. A **breaker**: closed
while it answers; open, so that agents with another provider pass it by, after several failures in a
short time; half-open after a while, when one call may probe it.

Every method is atomic and may be repeated. Times in arguments and results are seconds from now, by
the store's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

MINUTE: Final = 60.0
"""Seconds of the window in which limits hold."""

MEMORY: Final = 600.0
"""Seconds after which a breaker that nobody probes is forgotten."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerRule:
    """When a breaker opens, and for how long.

    Attributes:
        failures: So many calls must fail, with none answered in between that a process which saw
            a failure knows of.
        within: Seconds in which they do.
        open_for: Seconds until one call may probe the provider, and that such a call may take
            before another one may.
    """

    failures: int = 5
    within: float = 30.0
    open_for: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A model call that wants to be made.

    Attributes:
        call_id: Of its own, so that a repeat is known.
        provider: Name of the provider.
        tokens: What it will cost, as far as one can tell; at most `most_tokens`.
        most_requests: The provider's limit a minute; 0 for none.
        most_tokens: The provider's limit a minute; 0 for none.
        alone: Whether there is nobody else to ask: the breaker does not stop such a call.
    """

    call_id: str
    provider: str
    tokens: int = 0
    most_requests: int = 0
    most_tokens: int = 0
    alone: bool = True


class Reason(StrEnum):
    """Why a call has to wait."""

    HOLD = "hold"
    OPEN = "open"
    BUDGET = "budget"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """A call that may not be made now.

    Attributes:
        seconds: When to ask again, as far as one can tell.
    """

    reason: Reason
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How a provider stands with the fleet.

    Attributes:
        held: Seconds for which nobody may ask it.
        open: None while its breaker is closed; else seconds until it may be probed, 0 or less when
            it may be now.
    """

    held: float = 0.0
    open: float | None = None


class Traffic(Protocol):
    """The shared state. Safe to share between threads.

    Every method raises `StoreUnavailable` when Redis is out of reach.
    """

    def admit(self, ask: Ask) -> Wait | None:
        """May this call be made now? If so (None), its place in the budget is taken.

        A place is given back by nobody: it leaves the window with its time, whatever becomes of
        the call or its worker.
        """
        ...

    def settle(self, ask: Ask, used: int) -> None:
        """Charge what an admitted call has really cost: less gives back, more is charged now."""
        ...

    def failed(self, provider: str, call_id: str, *, hold: float | None, counts: bool) -> Standing:
        """A call failed in passing.

        Args:
            provider: Who failed.
            call_id: The call.
            hold: Seconds for which the provider asked everybody to wait, if it did.
            counts: Whether the failure counts towards the breaker.
        """
        ...

    def answered(self, provider: str) -> Standing:
        """A call was answered: failures are forgotten, a breaker that is half-open closes."""
        ...

    def standings(self, names: Sequence[str]) -> Mapping[str, Standing]:
        """How the providers stand, in one round trip."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
