"""The cluster that other tests kill nodes of."""

from __future__ import annotations

from pathlib import Path

import redis
from redis.crc import key_slot

from orchestrator.stack.cluster import Cluster, wait_until


def test_a_slot_moves_with_its_keys_and_a_replica_takes_over(tmp_path: Path) -> None:
    nodes = Cluster(tmp_path)
    try:
        client = redis.RedisCluster(host="127.0.0.1", port=nodes.ports[0])
        keys = [f"a:{{{number:03d}}}" for number in range(256)]
        for key in keys:
            client.set(key, key)
        slot = key_slot(keys[7].encode())
        old = nodes.primary_of(slot)
        new = next(node for node in nodes.primaries() if node.id != old.id)

        assert nodes.move_slot(slot, new) == 1
        assert nodes.primary_of(slot).id == new.id

        client.wait(1, 5000, target_nodes=redis.RedisCluster.PRIMARIES)
        promoted = nodes.fail_over(old)
        assert [client.get(key) for key in keys] == [key.encode() for key in keys]

        nodes.start(old.port)
        wait_until(nodes.in_step, "the replica's copy")
        [back] = [node for node in nodes.nodes() if node.port == old.port]
        assert back.primary == promoted.id
    finally:
        nodes.stop()
