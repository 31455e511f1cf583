"""Maps conversations to partitions, queues and shards of a Redis Cluster."""

from __future__ import annotations

from collections import Counter

from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from agentapi.ids import PARTITIONS
from agentapi.stores.groups import PARTITION_SLOTS, PARTITIONS_BY_SLOT

__all__ = ["PARTITION_SLOTS", "hottest_share", "shards_of_partitions"]


def shards_of_partitions(shards: int, *, balanced: bool) -> tuple[int, ...]:
    """The shard of each partition.

    Args:
        shards: Number of shards, 1 to 256.
        balanced: Whether slots are moved so that each shard has the same number of partitions.
            Otherwise each shard has an equal range of slots, as ``--cluster create`` gives them.
    """
    if not balanced:
        return tuple(slot * shards // REDIS_CLUSTER_HASH_SLOTS for slot in PARTITION_SLOTS)
    # Adjacent partitions stay together, so that each shard still has one range of slots.
    found = [0] * PARTITIONS
    for place, partition in enumerate(PARTITIONS_BY_SLOT):
        found[partition] = place * shards // PARTITIONS
    return tuple(found)


def hottest_share(shards: int, *, balanced: bool) -> float:
    """The largest share of all partitions that one shard has."""
    counts = Counter(shards_of_partitions(shards, balanced=balanced))
    return max(counts.values()) / PARTITIONS
