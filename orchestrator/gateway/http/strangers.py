"""How many requests without a valid key a peer may send."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Final

_MINUTE: Final = 60.0
_MOST_PEERS: Final = 10_000
"""Peers that are remembered; beyond them the one that was silent longest is forgotten."""


class Strangers:
    """Counts what peers send without a valid key, in this process. Bounded in memory."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Make one.

        Args:
            per_minute: Such requests that one peer may send in a minute; 0 for no limit.
            clock: In seconds.
        """
        self._each = _MINUTE / per_minute if per_minute else 0.0
        self._clock = clock
        self._whole: OrderedDict[str, float] = OrderedDict()

    def wait(self, peer: str) -> float:
        """Seconds until another request without a valid key is looked at; 0 for now."""
        over = self._whole.get(_network(peer), 0.0) + self._each - self._clock() - _MINUTE
        return max(0.0, over) if self._each else 0.0

    def note(self, peer: str) -> None:
        """Count a request without a valid key."""
        if not self._each:
            return
        network, now = _network(peer), self._clock()
        self._whole[network] = max(self._whole.pop(network, now), now) + self._each
        if len(self._whole) > _MOST_PEERS:
            self._whole.popitem(last=False)


def _network(peer: str) -> str:
    """What counts as one peer: an IPv4 address, or the 64 bits that one IPv6 customer has."""
    try:
        if ip_address(peer).version == 6:
            return str(ip_network((peer, 64), strict=False))
    except ValueError:
        pass
    return peer
