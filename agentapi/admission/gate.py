"""A process's local view of its providers, so that it asks Redis only when necessary.

While providers answer and no limits are set, a model call costs no round trip to Redis. A process
reports its own failures as they happen, and learns of other processes' failures with its heartbeat.
While a provider is unavailable, each process asks Redis before each call, so that one call at a
time finds out whether the provider is back.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from agentapi.admission.base import Ask, Reason, Standing, Traffic, Wait
from agentapi.conversation.messages import Usage
from agentapi.conversation.window import BYTES_PER_TOKEN, estimate_tokens
from agentapi.errors import (
    ContextTooLong,
    ProviderAway,
    ProviderError,
    ProviderHeld,
    ProviderUnavailable,
)
from agentapi.metrics import recorder
from agentapi.metrics.catalog import PROVIDER_BREAKER_OPEN, PROVIDER_HELD, PROVIDER_WAITS
from agentapi.providers import ModelRequest
from agentapi.settings import ProviderLimits

T = TypeVar("T")

EXPECTED_REPLY: Final = 500
"""Estimated tokens of a reply when the request does not limit it."""

TOO_MANY_REQUESTS: Final = 429

TRUSTED_FOR: Final = 1.0
"""Seconds for which a process trusts its local view of an open breaker. With a longer time it would
still refuse calls to a provider that another process has found to be back."""

ROUSES: Final = 3
"""How many times the turns that wait for a provider are woken when it is back: a turn may park just
after the first time."""

_BOUNDS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens", "maxOutputTokens")


class Caller(Protocol):
    """Runs a blocking call for an event loop."""

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Call the function in another thread and wait for its result."""
        ...


async def here(function: Callable[[], T], /) -> T:
    """A `Caller` for functions that do not block: calls them directly."""
    return function()


@dataclass(frozen=True, kw_only=True, slots=True)
class Permit:
    """Permission to make a model call."""

    ask: Ask


@dataclass(slots=True)
class _View:
    """The last known state of a provider, by this process's clock."""

    held_until: float = 0.0
    opens_at: float | None = None
    seen_at: float = 0.0
    suspect: bool = False
    """Whether this process has reported a failure and has seen no successful call since."""
    rouses: int = 0
    """How many more times to wake the turns that wait for the provider."""

    def take(self, standing: Standing, now: float) -> None:
        away, self.seen_at = self.opens_at is not None, now
        self.held_until = now + standing.held
        self.opens_at = None if standing.open is None else now + standing.open
        if self.opens_at is not None:
            self.rouses = 0
        elif away:
            self.rouses = ROUSES

    def known_away(self, now: float) -> float:
        """Seconds for which the provider is known to be unavailable; 0 when Redis must be asked."""
        fresh = now - self.seen_at < TRUSTED_FOR
        return self.opens_at - now if self.opens_at is not None and fresh else 0.0


class ProviderGate:
    """Admits every model call of a process."""

    def __init__(
        self,
        traffic: Traffic,
        limits: Mapping[str, ProviderLimits],
        *,
        parks: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the gate.

        Args:
            traffic: The state that the fleet shares.
            limits: Limits by provider name.
            parks: Whether turns can wait for a provider without holding the worker. If not, an
                agent with only one provider calls it even when the fleet knows that it is
                unavailable.
            clock: Returns seconds.
        """
        self._traffic = traffic
        self._limits = limits
        self._parks = parks
        self._clock = clock
        self._views: dict[str, _View] = {}

    async def enter(
        self, provider: str, request: ModelRequest, *, alone: bool, call: Caller = here
    ) -> Permit:
        """Ask for permission to make a model call.

        Args:
            provider: Name of the provider.
            request: The request to send.
            alone: Whether the agent has no other provider.
            call: Runs round trips to Redis.

        Raises:
            ProviderHeld: The fleet waits for the provider, or its budget is used up.
            ProviderAway: The provider's breaker is open.
            ContextTooLong: This call alone exceeds the limit of a minute.
            StoreUnavailable: Redis cannot be reached.
        """
        alone = alone and not self._parks
        view = await self._view(provider, call)
        now = self._clock()
        # The local view suffices: no round trip.
        if view.held_until > now:
            raise _refusal(provider, Reason.HOLD, view.held_until - now)
        if not alone and (seconds := view.known_away(now)) > 0:
            raise _refusal(provider, Reason.OPEN, seconds)
        limits = self._limits.get(provider)
        ask = Ask(
            # The Redis client repeats a command whose answer was lost. The id prevents a second
            # charge.
            call_id=uuid.uuid4().hex,
            provider=provider,
            tokens=_reservation(provider, request, limits),
            most_requests=(limits and limits.requests) or 0,
            most_tokens=(limits and limits.tokens) or 0,
            alone=alone,
        )
        # Otherwise Redis has nothing to add: no budget is set, and no open breaker needs a probe.
        if limits is not None or not (alone or view.opens_at is None):
            # One script checks and charges for the whole fleet: between two round trips another
            # worker could take the same room.
            wait = await call(lambda: self._traffic.admit(ask))
            if wait is not None:
                _heed(view, wait, self._clock())
                raise _refusal(provider, wait.reason, wait.seconds)
        return Permit(ask=ask)

    def _show(self, provider: str, view: _View) -> None:
        metrics, clock = recorder(), self._clock
        metrics.watch(PROVIDER_HELD, lambda: view.held_until > clock(), provider)
        metrics.watch(PROVIDER_BREAKER_OPEN, lambda: view.opens_at is not None, provider)

    async def _view(self, provider: str, call: Caller) -> _View:
        """This process's view of the provider. At the first call it asks the fleet."""
        view = self._views.get(provider)
        if view is None:
            view = self._views.setdefault(provider, _View())
            self._show(provider, view)
            # A process that starts during an outage must learn of it. Otherwise its first answer
            # would not close the breaker, and waiting turns would not be woken.
            if self._parks:
                found = await call(lambda: self._traffic.standings([provider]))
                view.take(found[provider], self._clock())
        return view

    async def answered(self, permit: Permit, usage: Usage, *, call: Caller = here) -> None:
        """Record an answer: charge the actual cost, and tell the fleet if the provider was in
        doubt.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        ask = permit.ask
        # Some servers do not report usage; the reservation then stands.
        if ask.most_tokens and usage.total_tokens:
            await call(lambda: self._traffic.settle(ask, usage.total_tokens))
        await self._alive(ask.provider, call)

    async def failed(self, permit: Permit, error: ProviderError, *, call: Caller = here) -> None:
        """Record a failure: hold the fleet, or count it towards the breaker.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        ask = permit.ask
        if isinstance(error, ProviderUnavailable):
            hold = error.retry_after
            # A server that says when to come back is healthy. Waiting is enough, and the breaker
            # stays closed.
            counts = error.status != TOO_MANY_REQUESTS or hold is None
            standing = await call(
                lambda: self._traffic.failed(ask.provider, ask.call_id, hold=hold, counts=counts)
            )
            view = self._views[ask.provider]
            view.suspect = view.suspect or counts
            view.take(standing, self._clock())
            if self._parks and standing.probes and standing.open is not None:
                error.probe_after = max(standing.open, 0.0)
        # It refused this request, so it is alive.
        elif error.status is not None:
            await self._alive(ask.provider, call)

    async def _alive(self, provider: str, call: Caller) -> None:
        view = self._views[provider]
        # An answer costs a round trip only if it can resolve the fleet's doubts.
        if view.suspect or view.opens_at is not None:
            view.suspect = False
            standing = await call(lambda: self._traffic.answered(provider))
            view.take(standing, self._clock())

    def look(self) -> None:
        """Fetch the fleet's state of the providers that this process uses.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        # A copy: this runs in the heartbeat's thread, while calls on the event loop add providers.
        names = list(self._views)
        if not names:
            return
        for name, standing in self._traffic.standings(names).items():
            self._views[name].take(standing, self._clock())

    def back(self) -> list[str]:
        """Providers that are back and whose waiting turns must be woken; see `roused`."""
        return [name for name, view in list(self._views.items()) if view.rouses > 0]

    def roused(self, provider: str) -> None:
        """Note that the turns that wait for the provider were woken."""
        view = self._views[provider]
        view.rouses = max(0, view.rouses - 1)

    def close(self) -> None:
        """Close the connections."""
        self._traffic.close()


def _reservation(provider: str, request: ModelRequest, limits: ProviderLimits | None) -> int:
    """Estimate the tokens that the call will cost."""
    if limits is None or limits.tokens is None:
        return 0
    texts = [request.system_prompt, *(f"{t.description}{t.parameters}" for t in request.tools)]
    asked = estimate_tokens(request.messages)
    asked += sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN
    if asked > limits.tokens:
        raise ContextTooLong(
            f"a call of about {asked} tokens exceeds the limit of provider {provider!r}, "
            f"{limits.tokens} tokens per minute (AGENTAPI_PROVIDER_LIMITS): raise the limit, or "
            "shorten the message",
            provider=provider,
            limit=limits.tokens,
            counted=asked,
            of_model=False,
        )
    bounds = (request.options.get(name) for name in _BOUNDS)
    reply = next((bound for bound in bounds if isinstance(bound, int)), EXPECTED_REPLY)
    # A call that exceeds the limit of a whole minute could never be admitted.
    return min(asked + reply, limits.tokens)


def _heed(view: _View, wait: Wait, now: float) -> None:
    if wait.reason is Reason.HOLD:
        view.held_until = now + wait.seconds
    elif wait.reason is Reason.OPEN:
        view.opens_at, view.seen_at = now + wait.seconds, now


_REFUSALS: Final = {
    Reason.HOLD: "asked clients to wait",
    Reason.OPEN: "failed several times in a short time and is paused",
    Reason.BUDGET: "has reached its AGENTAPI_PROVIDER_LIMITS",
}


def _refusal(provider: str, reason: Reason, seconds: float) -> ProviderUnavailable:
    recorder().count(PROVIDER_WAITS, provider, reason.value)
    text = f"provider {provider!r} {_REFUSALS[reason]}; next attempt in {seconds:.1f} s"
    if reason is Reason.OPEN:
        return ProviderAway(text, provider=provider, retry_after=seconds)
    budget = reason is Reason.BUDGET
    return ProviderHeld(text, provider=provider, retry_after=seconds, budget=budget)
