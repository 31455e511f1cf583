"""The protocol for the state of providers that a fleet shares. It has two implementations.

Three things are kept for each provider:

- A ***budget**: the requests and tokens of the last minute.
- A ***hold**: the time until which the provider asked the fleet to wait.
- A **breaker**: closed while the provider answers; open after several failures in a short time,
  when the provider counts as unavailable and is not called; half-open after a while, when one call
  may probe it.

Every method is atomic and may be repeated. Times in arguments and results are seconds from now, by
the store's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

MINUTE: Final = 60.0
"""Length of the window for limits, in seconds."""

MEMORY: Final = 600.0
"""Seconds after which a breaker that no process probes is deleted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerRule:
    """When a breaker opens, and for how long.

    Attributes:
        failures: Number of failed calls that open it. An answer resets the count if it reaches a
            process that saw a failure.
        within: Seconds within which these calls must fail.
        open_for: Seconds until one call may probe the provider; doubled with each probe that fails.
        longest: Maximum seconds between a failed probe and the next one.
        probe_for: Seconds that a probe may take. After that, another call may probe.
    """

    failures: int = 5
    within: float = 30.0
    open_for: float = 1.0
    longest: float = 10.0
    probe_for: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A request to make a model call.

    Attributes:
        call_id: Id of the call, so that a repeat is recognised.
        provider: Name of the provider.
        tokens: Estimated cost; at most `most_tokens`.
        most_requests: The provider's limit of requests per minute; 0 for none.
        most_tokens: The provider's limit of tokens per minute; 0 for none.
        alone: Whether the call has no alternative: no other provider, and no turn that can wait.
            Then the breaker does not stop it.
    """

    call_id: str
    provider: str
    tokens: int = 0
    most_requests: int = 0
    most_tokens: int = 0
    alone: bool = True


class Reason(StrEnum):
    """Why a call must wait."""

    HOLD = "hold"
    OPEN = "open"
    BUDGET = "budget"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """A call that may not be made now.

    Attributes:
        reason: Why.
        seconds: Estimated time until it is worth asking again.
    """

    reason: Reason
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """The shared state of a provider.

    Attributes:
        held: Seconds for which no call is allowed.
        open: None while its breaker is closed; otherwise seconds until it may be probed, 0 or less
            if it may be probed now.
        probes: Whether the call in question opened the breaker. Its turn probes next, because the
            others wait longer.
    """

    held: float = 0.0
    open: float | None = None
    probes: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """The usage charged to the budget of a provider that has a limit.

    Attributes:
        requests: Requests of the last minute.
        tokens: Their tokens, for calls that run as reserved.
    """

    requests: int = 0
    tokens: int = 0


class Traffic(Protocol):
    """The shared state. Safe to share between threads.

    Every method raises `StoreUnavailable` when Redis cannot be reached.
    """

    def admit(self, ask: Ask) -> Wait | None:
        """Reserve a place in the budget; returns None if the call may be made now.

        A reservation is never returned. It leaves the window after its time, whatever happens to
        the call or its worker.
        """
        ...

    def settle(self, ask: Ask, used: int) -> None:
        """Charge the actual cost of a call: free unused tokens, charge additional ones."""
        ...

    def failed(self, provider: str, call_id: str, *, hold: float | None, counts: bool) -> Standing:
        """Record a transient failure of a call.

        Args:
            provider: The provider that failed.
            call_id: The call.
            hold: Seconds that the provider asked to wait, if it did.
            counts: Whether the failure counts towards the breaker.
        """
        ...

    def answered(self, provider: str) -> Standing:
        """Record an answered call: reset the failures, and close a half-open breaker."""
        ...

    def standings(self, names: Sequence[str]) -> Mapping[str, Standing]:
        """The state of several providers, in one round trip."""
        ...

    def used(self, names: Sequence[str]) -> Mapping[str, Used]:
        """The usage charged to the budgets of several providers, in one round trip."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...
