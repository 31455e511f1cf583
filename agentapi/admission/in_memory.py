"""The in-memory twin of the Lua scripts, for eager mode and agents that run on their own.

It follows the scripts step by step, and counts in milliseconds as they do.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agentapi.admission.base import MINUTE, Ask, BreakerRule, Reason, Standing, Used, Wait

_RULE: Final = BreakerRule()


@dataclass
class _Charge:
    at: int
    tokens: int
    requests: int


@dataclass
class _Provider:
    hold: int = 0
    open: int | None = None
    opens: int = 0
    opened_by: str | None = None
    probe: str | None = None
    probe_until: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    charges: dict[str, _Charge] = field(default_factory=dict)

    def slide(self, now: int, window: int) -> None:
        """Delete the charges that have left the window."""
        gone = [name for name, charge in self.charges.items() if charge.at < now - window]
        for name in gone:
            del self.charges[name]

    def until_it_fits(self, ask: Ask, now: int, window: int) -> int:
        """Milliseconds until the budget has room for the call."""
        requests = 1 + sum(charge.requests for charge in self.charges.values())
        tokens = ask.tokens + sum(charge.tokens for charge in self.charges.values())
        free = now
        for charge in sorted(self.charges.values(), key=lambda charge: charge.at):
            many = ask.most_requests and requests > ask.most_requests
            if not many and not (ask.most_tokens and tokens > ask.most_tokens):
                break
            requests -= charge.requests
            tokens -= charge.tokens
            free = charge.at + window + 1
        return free - now

    def standing(self, now: int, call_id: str | None = None) -> Standing:
        """The state as the fleet sees it, and whether this call opened the breaker."""
        return Standing(
            held=max(self.hold - now, 0) / 1000,
            open=None if self.open is None else (self.open - now) / 1000,
            probes=call_id is not None and self.opened_by == call_id,
        )

    def close(self) -> None:
        """Close the breaker."""
        self.open, self.opens, self.opened_by = None, 0, None
        self.probe, self.probe_until, self.failures = None, 0, {}


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class InMemoryTraffic:
    """The `Traffic` of a single process."""

    def __init__(
        self,
        *,
        rule: BreakerRule = _RULE,
        window: float = MINUTE,
        clock: Callable[[], int] = _monotonic_ms,
    ) -> None:
        """Start without any state.

        Args:
            rule: When breakers open.
            window: Length of the window for limits, in seconds.
            clock: Returns milliseconds.
        """
        self._rule = rule
        self._window = round(window * 1000)
        self._probe_for = round(rule.probe_for * 1000)
        self._clock = clock
        self._providers: defaultdict[str, _Provider] = defaultdict(_Provider)
        self._lock = threading.Lock()

    def admit(self, ask: Ask) -> Wait | None:
        """See `Traffic.admit`."""
        with self._lock:
            now, provider = self._clock(), self._providers[ask.provider]
            # The call is already admitted; this is a repeat of the same request.
            if ask.call_id in (provider.probe, *provider.charges):
                return None
            if provider.hold > now:
                return _wait(Reason.HOLD, provider.hold - now)
            probes = not ask.alone and provider.open is not None
            if probes and (free := max(provider.open or 0, provider.probe_until)) > now:
                return _wait(Reason.OPEN, free - now)
            if ask.most_requests or ask.most_tokens:
                provider.slide(now, self._window)
                if (left := provider.until_it_fits(ask, now, self._window)) > 0:
                    return _wait(Reason.BUDGET, left)
                charge = _Charge(at=now, tokens=ask.tokens, requests=1)
                provider.charges[ask.call_id] = charge
            if probes:
                provider.probe, provider.probe_until = ask.call_id, now + self._probe_for
            return None

    def settle(self, ask: Ask, used: int) -> None:
        """See `Traffic.settle`."""
        with self._lock:
            now, provider = self._clock(), self._providers[ask.provider]
            provider.slide(now, self._window)
            charge, more = provider.charges.get(ask.call_id), f"{ask.call_id}:more"
            if charge is not None and used < charge.tokens:
                charge.tokens = used
            elif used > ask.tokens and more not in provider.charges:
                # A separate charge, dated now: the first one keeps the time at which it leaves the
                # window.
                extra = _Charge(at=now, tokens=used - ask.tokens, requests=0)
                provider.charges[more] = extra

    def failed(self, provider: str, call_id: str, *, hold: float | None, counts: bool) -> Standing:
        """See `Traffic.failed`."""
        with self._lock:
            now, state = self._clock(), self._providers[provider]
            if hold:
                state.hold = max(state.hold, now + round(hold * 1000))
            if counts:
                self._count(state, call_id, now)
            return state.standing(now, call_id)

    def _count(self, state: _Provider, call_id: str, now: int) -> None:
        # A single failed probe reopens the breaker.
        opens = state.probe == call_id
        if state.open is None:
            begin = now - round(self._rule.within * 1000)
            state.failures = {c: at for c, at in state.failures.items() if at >= begin}
            state.failures.setdefault(call_id, now)
            opens = len(state.failures) >= self._rule.failures
        if opens:
            before = 0 if state.open is None else state.opens
            seconds = min(self._rule.open_for * 2.0 ** min(before, 30), self._rule.longest)
            state.close()
            state.open, state.opens = now + round(seconds * 1000), before + 1
            state.opened_by = call_id

    def answered(self, provider: str) -> Standing:
        """See `Traffic.answered`."""
        with self._lock:
            now, state = self._clock(), self._providers[provider]
            # An answer during the pause does not close the breaker: its call may have begun before
            # the breaker opened.
            if state.open is None or state.open <= now:
                state.close()
            return state.standing(now)

    def standings(self, names: Sequence[str]) -> Mapping[str, Standing]:
        """See `Traffic.standings`."""
        with self._lock:
            now = self._clock()
            return {name: self._providers[name].standing(now) for name in names}

    def used(self, names: Sequence[str]) -> Mapping[str, Used]:
        """See `Traffic.used`."""
        with self._lock:
            now = self._clock()
            for name in names:
                self._providers[name].slide(now, self._window)
            charges = {name: self._providers[name].charges.values() for name in names}
            return {
                name: Used(
                    requests=sum(charge.requests for charge in found),
                    tokens=sum(charge.tokens for charge in found),
                )
                for name, found in charges.items()
            }

    def close(self) -> None:
        """Nothing to close."""


def _wait(reason: Reason, ms: int) -> Wait:
    return Wait(reason=reason, seconds=ms / 1000)
