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
from orchestrator.stack import Stack
from orchestrator.stack.cluster import Cluster, wait_until
from tests.cluster_load import another, ask, stack_on, under_load


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    # Long enough that on a busy machine no primary is replaced while it gives slots away.
    made = Cluster(tmp_path / "cluster", node_timeout=5)
    yield made
    made.stop()


@pytest.fixture
def stack(nodes: Cluster, tmp_path: Path) -> Iterator[Stack]:
    with stack_on(nodes, tmp_path, redis_timeout=2) as running:
        yield running


def test_slots_move_and_primaries_fail_while_turns_run(nodes: Cluster, stack: Stack) -> None:
    """The cluster promotes the replicas by itself: of a primary that was killed, and of one that
    hangs and comes back."""
    with Orchestrator(stack.settings) as orchestrator, under_load(orchestrator) as load:
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
