"""Where conversations go: their partition, its queue, and its shard of a Redis Cluster."""

from __future__ import annotations

from collections import Counter
from typing import Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from agentapi.ids import PARTITIONS

PARTITION_SLOTS: Final = tuple(
    key_slot(f"{{{number:03d}}}".encode()) for number in range(PARTITIONS)
)
"""The hash slot of each partition."""


def shards_of_partitions(shards: int, *, balanced: bool) -> tuple[int, ...]:
    """The shard of each partition.

    Args:
        shards: How many shards, 1 to 256.
        balanced: Whether slots are moved so that each shard has the same number of partitions.
            Otherwise each shard has an equal range of slots, as ``--cluster create`` gives them.
    """
    if not balanced:
        return tuple(slot * shards // REDIS_CLUSTER_HASH_SLOTS for slot in PARTITION_SLOTS)
    # Neighbours stay together, so that each shard still has one range of slots.
    order = sorted(range(PARTITIONS), key=PARTITION_SLOTS.__getitem__)
    found = [0] * PARTITIONS
    for place, partition in enumerate(order):
        found[partition] = place * shards // PARTITIONS
    return tuple(found)


def hottest_share(shards: int, *, balanced: bool) -> float:
    """The share of all partitions that the shard with the most of them has."""
    counts = Counter(shards_of_partitions(shards, balanced=balanced))
    return max(counts.values()) / PARTITIONS
