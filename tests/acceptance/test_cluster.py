"""Real workers on a cluster: a primary dies, a slot moves, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from redis.crc import key_slot

from agentapi.errors import StoreUnavailable
from agentapi.ids import PARTITIONS
from agentapi.redis.keys import due_key
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Stack, start_valkey
from orchestrator.stack.cluster import Cluster, Node, wait_until

MESSAGE = '/count_up {"seconds": 0.2}'
CONVERSATIONS = 20


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "cluster")
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
        lease_ttl=3,
        heartbeat=1,
        dispatch_grace=1,
    ) as running:
        yield running
    broker.stop()


class Load:
    """Enqueues turns until it is stopped, as a patient client does."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._stop = threading.Event()
        self.handles: list[TurnHandle] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            number = len(self.handles)
            while True:
                try:
                    handle = self._orchestrator.enqueue(
                        "tools",
                        MESSAGE,
                        conversation_id=f"c:{number % CONVERSATIONS}",
                        idempotency_key=f"key:{number}",
                    )
                except StoreUnavailable:
                    if self._stop.wait(0.1):
                        return
                else:
                    break
            self.handles.append(handle)

    def more(self, turns: int) -> None:
        """Wait until some more turns were accepted."""
        wanted = len(self.handles) + turns
        wait_until(lambda: len(self.handles) >= wanted, "more turns")

    def stop(self) -> list[TurnHandle]:
        self._stop.set()
        self._thread.join()
        return self.handles


def assert_all_came_true(orchestrator: Orchestrator, handles: list[TurnHandle]) -> None:
    """Each turn completed once, in the order of acceptance."""
    for handle in handles:
        handle.result(timeout=120)
    for conversation in {handle.conversation_id for handle in handles}:
        history = orchestrator.history(conversation)
        said = [message["turn_id"] for message in history if message["role"] == "user"]
        assert said == [h.turn_id for h in handles if h.conversation_id == conversation]


def ask(stack: Stack) -> int:
    """Have a turn run through the gateway, and its events followed."""
    body = {"model": "tools", "messages": [{"role": "user", "content": "hi"}]}
    return httpx2.post(
        f"{stack.gateway_url}/v1/chat/completions", json=body, timeout=60
    ).status_code


def another(nodes: Cluster, node: Node) -> Node:
    return next(other for other in nodes.primaries() if other.id != node.id)


def test_slots_move_and_a_primary_dies_while_turns_run(nodes: Cluster, stack: Stack) -> None:
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
            dead = nodes.primaries()[0]
            nodes.fail_over(dead)
            # Until it is back, its shard has no replica that could have a new turn.
            nodes.start(dead.port)
            load.more(20)
            wait_until(lambda: ask(stack) == 200, "the gateway")
        finally:
            handles = load.stop()
        assert_all_came_true(orchestrator, handles)
