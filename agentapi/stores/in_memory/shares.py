"""How workers share the sweep, in memory; see `agentapi/stores/lua/elect.lua`."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from agentapi.stores.groups import SWEEP_GROUPS


@dataclass(kw_only=True)
class Shares:
    """Which worker sweeps each group of partitions.

    Attributes:
        owners: The worker of each group.
        until: The time until which it has the group.
        swept: When each group was last swept.
    """

    owners: dict[int, str] = field(default_factory=dict)
    until: dict[int, float] = field(default_factory=dict)
    swept: dict[int, float] = field(default_factory=dict)

    def call(self, candidate: str, now: float, ttl: float, *, swept: bool) -> frozenset[int]:
        """Give a worker its share; returns its groups."""
        self.owners = {g: owner for g, owner in self.owners.items() if self.until[g] > now}
        if swept:
            self.swept |= dict.fromkeys(self._of(candidate), now)
        counts = Counter(self.owners.values())
        share = math.ceil(SWEEP_GROUPS / len({candidate, *counts}))
        for group in range(SWEEP_GROUPS):
            if group not in self.owners and counts[candidate] < share:
                counts[candidate] += 1
                self.owners[group] = candidate
        for group in reversed(range(SWEEP_GROUPS)):
            owner = self.owners.get(group, candidate)
            if counts[owner] > counts[candidate] + 1:
                counts[owner] -= 1
                counts[candidate] += 1
                self.owners[group] = candidate
        self.until |= dict.fromkeys(self._of(candidate), now + ttl)
        return self._of(candidate)

    def resign(self, candidate: str) -> None:
        """Leave the worker's groups to the others."""
        for group in self._of(candidate):
            del self.owners[group]

    def taken(self, now: float) -> bool:
        """Whether a worker has a group."""
        return any(self.until[group] > now for group in self.owners)

    def oldest_sweep(self) -> float | None:
        """Time of the last sweep of the group that has gone longest without one; None before the
        first sweep."""
        return min(self.swept.values()) if len(self.swept) == SWEEP_GROUPS else None

    def _of(self, candidate: str) -> frozenset[int]:
        return frozenset(group for group, owner in self.owners.items() if owner == candidate)
