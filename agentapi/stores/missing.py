"""The part of a cluster that does not answer while the rest does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentapi.ids import PARTITIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Partitions on shards of a cluster that did not answer. Their data is missing from the lists
    and numbers of the same result.

    Attributes:
        partitions: Number of missing partitions.
        shards: Addresses of the nodes that serve them, if known.
    """

    partitions: int
    shards: Sequence[str] = ()

    def __str__(self) -> str:
        where = f" ({', '.join(self.shards)})" if self.shards else ""
        return (
            f"{self.partitions} of {PARTITIONS} partitions are missing: their shard{where} does "
            "not answer"
        )

    def __add__(self, other: Missing | None) -> Missing:
        if other is None:
            return self
        return Missing(
            partitions=self.partitions + other.partitions,
            shards=tuple(sorted({*self.shards, *other.shards})),
        )
