"""A shard of a cluster that is silent or gone keeps nobody waiting but its own turns."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from agentapi import load_settings
from agentapi.checks.redis_server import ask_redis
from agentapi.errors import StoreUnavailable
from agentapi.ids import create_turn_id, partition_of
from agentapi.redis.keys import due_key
from agentapi.stores import Accepted, Lease, NewEvent, RedisTurnStore
from agentapi.turns import EventType, NewTurn
from orchestrator.stack.cluster import Cluster, Node
from tests.conformance.stores import Bench, completed, on_redis

TIMEOUT = 4.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("shards"), replicas=0)
    yield made
    made.stop()


@pytest.fixture
def bench(nodes: Cluster) -> Iterator[Bench]:
    nodes.empty()
    made = on_redis(nodes.url, redis_timeout=TIMEOUT)
    yield made
    made.store.close()


def conversation_on(nodes: Cluster, node: Node) -> str:
    names = (f"c:{number}" for number in range(1000))
    return next(
        name for name in names if node.serves(key_slot(due_key(partition_of(name)).encode()))
    )


class Silent:
    """A node that is stopped for a while, as by a hanging disk."""

    def __init__(self, nodes: Cluster, node: Node) -> None:
        self._process = nodes.process(node.port)

    def __enter__(self) -> None:
        self._process.signal(signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        self._process.signal(signal.SIGCONT)


def claimed(bench: Bench, conversation: str) -> Lease:
    return bench.claim(bench.enqueue(conversation), conversation).lease


def test_the_other_shards_turns_go_on(nodes: Cluster, bench: Bench) -> None:
    silent, well, *_ = nodes.primaries()
    lost, found = conversation_on(nodes, silent), conversation_on(nodes, well)
    leases = [claimed(bench, lost), claimed(bench, found)]
    store = bench.store
    text = [NewEvent(type=EventType.DELTA, data={"text": "x"})]
    read: list[str] = []
    heard = threading.Event()

    def follow() -> None:
        cursors = {lease.turn_id: -1 for lease in leases}
        while not heard.is_set():
            for turn_id, events in store.events(cursors, 5).items():
                cursors[turn_id] = events[-1].number
                if any(event.type is EventType.COMPLETED for event in events):
                    read.append(turn_id)
                    heard.set()

    reader = threading.Thread(target=follow)
    reader.start()
    with Silent(nodes, silent):
        assert store.emit([(lease, 1, text) for lease in leases]) == [0]
        assert [renewal.held for renewal in store.renew(leases)] == [True, True]
        bench.overdue_now(found)
        assert store.overdue() == [found]
        assert store.commit(leases[1], completed(leases[1].turn_id)) is None
        assert heard.wait(20)
        assert read == [leases[1].turn_id]
        with pytest.raises(StoreUnavailable):
            store.commit(leases[0], completed(leases[0].turn_id))
        # Known to be silent by now, so that few calls wait for it.
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(StoreUnavailable):
                store.turn(leases[0].turn_id)
        assert time.monotonic() - began < 10 * TIMEOUT
    reader.join()
    deadline = time.monotonic() + 30
    while True:
        try:
            store.emit([(leases[0], 1, text)])
            store.commit(leases[0], completed(leases[0].turn_id))
            break
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    kinds = [event.type for event in store.events({leases[0].turn_id: -1}, 0)[leases[0].turn_id]]
    assert kinds.count(EventType.DELTA) == 1


def test_replicas_that_are_missing(nodes: Cluster, redis_url: str) -> None:
    """On a cluster and on one server: what was written stands, and a repeat finds it."""
    for url in (nodes.url, redis_url):
        settings = load_settings(
            redis_url=url, broker_url="memory://", redis_wait_replicas=1, redis_timeout=2
        )
        strict, plain = RedisTurnStore(settings), on_redis(url)
        new = NewTurn(turn_id=create_turn_id("c"), conversation_id="c", agent="a", input="hi")
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="replicas"):
                strict.enqueue([new])
        [again] = plain.store.enqueue([new])
        assert isinstance(again, Accepted)
        assert not again.created
        strict.close()
        plain.store.close()


def test_replicas_that_are_there(cluster: Cluster) -> None:
    cluster.empty()
    bench = on_redis(cluster.url, redis_wait_replicas=1)
    lease = claimed(bench, "c")
    bench.store.commit(lease, completed(lease.turn_id))
    assert bench.store.turn(lease.turn_id).status.ended
    bench.store.close()


def test_the_doctor_asks_all_shards(nodes: Cluster, bench: Bench) -> None:
    facts = ask_redis(bench.settings)
    assert facts.persistence["aof_enabled"] == 1
    assert facts.memory["maxmemory_policy"] == "noeviction"
