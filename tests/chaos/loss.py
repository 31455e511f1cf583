"""What a failover may lose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A failover: what only the old master had is gone.

    Attributes:
        cut: When the replica was cut off, by the machine's monotonic clock.
        killed: When the old master died.
        served: When the new one took writes.
        bytes_lost: How much of the replication stream the replica had not got.
        partitions: Those that the old master had; None for all.
    """

    cut: float
    killed: float
    served: float
    bytes_lost: int
    partitions: frozenset[int] | None = None

    def concerns(self, turn: str) -> bool:
        """Whether a turn was on that master."""
        return self.partitions is None or int(turn[:3]) in self.partitions
