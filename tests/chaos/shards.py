"""Redis Cluster: shards whose primaries die, stand still, or give slots away under load."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis.crc import key_slot

from orchestrator.stack.cluster import Cluster, Node
from tests.chaos.loss import Loss
from tests.chaos.sentinels import caught_up, client, offset
from tests.faults import until

PARTITIONS = 256


class Shards(Cluster):
    """Three primaries, each with a replica.

    Attributes:
        losses: The failovers so far.
    """

    def __init__(self, folder: Path, chance: random.Random, node_timeout: float = 0) -> None:
        """Start it; returns when all replicas are in step.

        Args:
            folder: For data and logs.
            chance: Chooses what is harmed.
            node_timeout: Seconds until it promotes a replica by itself; 0 to promote by order.
        """
        super().__init__(folder, fsync="always", node_timeout=node_timeout or 15)
        self._by_itself = node_timeout > 0
        self.losses: list[Loss] = []
        self._chance = chance

    def fail_over_one(self, lag: float) -> None:
        """Kill a primary when its replica has been cut off for some time; the replica is promoted.

        Args:
            lag: Seconds in which all that is written to this shard is lost.
        """
        until(self.in_step, 60, "the replicas' copies")
        old = self._primary()
        replica = next(node for node in self.nodes() if node.primary == old.id)
        lost = frozenset(p for p in range(PARTITIONS) if old.serves(slot_of(p)))
        with client(old.port) as primary, client(replica.port) as copy:
            cut = caught_up(primary, copy)
            primary.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
            primary.execute_command("CLIENT", "KILL", "TYPE", "REPLICA")
            time.sleep(lag)
            written = offset(primary)
        with client(replica.port) as copy:
            bytes_lost = written - offset(copy)
        self.process(old.port).kill()
        killed = time.monotonic()
        if self._by_itself:
            self.successor(old)
        else:
            self.fail_over(old)
        served = time.monotonic()
        self.losses.append(
            Loss(cut=cut, killed=killed, served=served, bytes_lost=bytes_lost, partitions=lost)
        )
        self.start(old.port)

    def move_one(self) -> None:
        """Give the slot of a partition to another primary."""
        slot = slot_of(self._chance.randrange(PARTITIONS))
        owner = self.primary_of(slot)
        others = [node for node in self.primaries() if node.id != owner.id]
        self.move_slot(slot, self._chance.choice(others))

    @contextmanager
    def one_stands_still(self) -> Iterator[None]:
        """A primary stops answering, and stays the primary."""
        stopped = self.process(self._primary().port)
        stopped.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            stopped.signal(signal.SIGCONT)

    def _primary(self) -> Node:
        return self._chance.choice(sorted(self.primaries(), key=lambda node: node.port))


def slot_of(partition: int) -> int:
    """The slot of everything of a partition."""
    slot: int = key_slot(f"{partition:03d}".encode())
    return slot
