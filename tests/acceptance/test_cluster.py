"""Real workers on a cluster: primaries die and hang, a slot moves, and nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from agentapi.ids import PARTITIONS
from agentapi.redis.keys import ELECTION_KEY, due_key
from orchestrator import Orchestrator
from orchestrator.stack import Stack, start_valkey
from orchestrator.stack.cluster import Cluster, Node, wait_until
from tests.cluster_load import Load, ask, assert_all_came_true


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    # So short that a busy machine may promote a replica of a primary that lives: with a replica
    # waited for, that loses nothing either.
    made = Cluster(tmp_path / "cluster", node_timeout=2)
    yield made
    made.stop()


@pytest.fixture
def stack(nodes: Cluster, tmp_path: Path) -> Iterator[Stack]:
    broker, broker_url = start_valkey(tmp_path / "broker")
    with Stack(
        tmp_path,
        agents=("tests.acceptance.agents",),
        workers=2,
        flower=False,
        gateway=True,
        redis_url=nodes.url,
        broker_url=broker_url,
        redis_wait_replicas=1,
        redis_timeout=2,
        lease_ttl=3,
        heartbeat=1,
        dispatch_grace=1,
    ) as running:
        yield running
    broker.stop()


def another(nodes: Cluster, node: Node) -> Node:
    return next(other for other in nodes.primaries() if other.id != node.id)


def test_slots_move_and_primaries_fail_while_turns_run(nodes: Cluster, stack: Stack) -> None:
    """The cluster promotes the replicas by itself: of a primary that was killed, and of one that
    hangs and comes back."""
    with Orchestrator(stack.settings) as orchestrator:
        load = Load(orchestrator)
        try:
            load.more(10)
            # One of many partitions, of which some hold a conversation of the load.
            slots = {key_slot(due_key(p).encode()) for p in range(0, PARTITIONS, 4)}
            moved = 0
            for slot in slots:
                moved += nodes.move_slot(slot, another(nodes, nodes.primary_of(slot)))
            assert moved > 0
            load.more(10)
            dead = nodes.primary_of(key_slot(ELECTION_KEY.encode()))
            nodes.lose(dead)
            # Until it is back, its shard has no replica that could have a new turn.
            nodes.start(dead.port)
            load.more(20)
            wait_until(lambda: ask(stack) == 200, "the gateway")
            wait_until(nodes.in_step, "the replicas' copies")
            hung = another(nodes, dead)
            process = nodes.process(hung.port)
            process.signal(signal.SIGSTOP)
            try:
                nodes.successor(hung)
            finally:
                process.signal(signal.SIGCONT)
            load.more(20)
            wait_until(lambda: ask(stack) == 200, "the gateway")
        finally:
            handles = load.stop()
        assert_all_came_true(orchestrator, handles)
