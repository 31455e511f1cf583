"""The data that a failover may lose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A failover that lost the data that only the old master had.

    Attributes:
        cut: When the replica was cut off, by the machine's monotonic clock.
        killed: When the old master died.
        served: When the new master accepted writes.
        bytes_lost: Bytes of the replication stream that the replica had not received.
        partitions: The partitions of the old master; None for all.
    """

    cut: float
    killed: float
    served: float
    bytes_lost: int
    partitions: frozenset[int] | None = None

    def concerns(self, turn: str) -> bool:
        """Whether a turn was stored on that master."""
        return self.partitions is None or int(turn[:3]) in self.partitions
