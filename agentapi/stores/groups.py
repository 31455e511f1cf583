"""Groups of partitions: the parts of the sweep that workers share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from redis.crc import key_slot

from agentapi.ids import PARTITIONS
from agentapi.redis.keys import due_key

SWEEP_GROUPS: Final = 16
"""Number of groups. It must be the same in consecutive releases."""

PARTITION_SLOTS: Final = tuple(key_slot(due_key(p).encode()) for p in range(PARTITIONS))
"""The hash slot of each partition."""

PARTITIONS_BY_SLOT: Final = tuple(sorted(range(PARTITIONS), key=PARTITION_SLOTS.__getitem__))
"""All partitions, ordered by hash slot."""

_SIZE: Final = PARTITIONS // SWEEP_GROUPS

# Neighbours in slot order, so that most groups lie on one shard of a cluster. A slow shard then
# delays only the workers that sweep it.
_GROUPS: Final = tuple(
    tuple(sorted(PARTITIONS_BY_SLOT[first : first + _SIZE]))
    for first in range(0, PARTITIONS, _SIZE)
)

_GROUP_OF: Final = {p: group for group, members in enumerate(_GROUPS) for p in members}


def group_of(partition: int) -> int:
    """The group of a partition."""
    return _GROUP_OF[partition]


def partitions_of(groups: Iterable[int]) -> list[int]:
    """The partitions of some groups, in order."""
    return sorted(partition for group in groups for partition in _GROUPS[group])
