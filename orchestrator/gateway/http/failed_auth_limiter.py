"""Limits the requests without a valid key of each peer, in this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Final

_MINUTE: Final = 60.0
_MAX_PEERS: Final = 10_000
"""Maximum peers that are tracked. Beyond that the least recently seen peer is dropped."""


class FailedAuthLimiter:
    """Counts failed authentications of peers, in bounded memory."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with no failures.

        Args:
            per_minute: Failures of one peer per minute; 0 for no limit.
            clock: In seconds.
        """
        # A leaky bucket: for each peer, the time at which its failures are forgotten.
        self._each = _MINUTE / per_minute if per_minute else 0.0
        self._clock = clock
        self._forgotten_at: OrderedDict[str, float] = OrderedDict()

    def retry_after(self, peer: str) -> float:
        """Seconds until the peer may try again; 0 if it may now."""
        if not self._each:
            return 0.0
        full = self._forgotten_at.get(_network(peer), 0.0) + self._each - _MINUTE
        return max(0.0, full - self._clock())

    def record_failure(self, peer: str) -> None:
        """Count a request without a valid key."""
        if not self._each:
            return
        network, now = _network(peer), self._clock()
        # Popped and put back, so that the first entry is the one that was silent longest.
        until = max(self._forgotten_at.pop(network, now), now)
        self._forgotten_at[network] = until + self._each
        if len(self._forgotten_at) > _MAX_PEERS:
            self._forgotten_at.popitem(last=False)


def _network(peer: str) -> str:
    """What counts as one peer: an IPv4 address, or the 64 bits that one IPv6 customer has."""
    try:
        if ip_address(peer).version == 6:
            return str(ip_network((peer, 64), strict=False))
    except ValueError:
        pass
    return peer
