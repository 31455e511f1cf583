"""A shard of a cluster that is silent or gone keeps nobody waiting but its own turns."""

from __future__ import annotations

import io
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import httpx2
import pytest
from redis.crc import key_slot
from rich.console import Console

from agentapi import load_settings
from agentapi.checks.redis_server import ask_redis
from agentapi.errors import StoreUnavailable
from agentapi.ids import PARTITIONS, create_turn_id, partition_of
from agentapi.redis.keys import ELECTION_KEY, due_key
from agentapi.stores import (
    Accepted,
    ConversationQuery,
    ConversationSummary,
    Ends,
    Lease,
    NewEvent,
    Paged,
    RedisTurnStore,
    TurnQuery,
    TurnSummary,
    Wakeup,
)
from agentapi.stores.groups import SWEEP_GROUPS, group_of
from agentapi.stores.missing import Missing
from agentapi.turns import EventType, NewTurn
from orchestrator.cli.failures import ExitCode
from orchestrator.cli.fleet_frame import frame
from orchestrator.cli.main import app as command_line
from orchestrator.ends import follow
from orchestrator.fleet import FleetReader
from orchestrator.gateway import create_app
from orchestrator.gateway.http.authentication import Authenticator
from orchestrator.gateway.http.middleware import RequestGate
from orchestrator.gateway.http.request_body import BodyReader
from orchestrator.gateway.measuring import FleetGauges
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.settings import load_gateway_settings
from orchestrator.gateway.tenants.keys import KEYED, KEYS
from orchestrator.stack.cluster import Cluster, Node
from tests.conformance.stores import Bench, completed, on_redis
from tests.faults import until
from workers.dispatch import Dispatcher
from workers.errands import Errands
from workers.outage import Outage
from workers.upkeep.sweeper import Sweeper

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
        assert heard.wait(60)
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


class Sent:
    """A broker that takes wake-ups, as far as a sweep goes."""

    returns = 0

    def __init__(self) -> None:
        self.conversations: set[str] = set()

    def send_all(self, wakeups: Sequence[Wakeup]) -> None:
        self.conversations |= {wakeup.conversation_id for wakeup in wakeups}

    def reachable(self) -> bool:
        return True

    def holds(self, queue: str) -> bool:
        return False


def test_the_sweep_goes_on_without_the_shard_of_the_election(nodes: Cluster) -> None:
    nodes.empty()
    bench = on_redis(nodes.url, redis_timeout=2, sweep_interval=60)
    sent, store = Sent(), bench.store
    sweeper = Sweeper(
        bench.settings, store, cast("Dispatcher", sent), cast("Errands", None), Outage()
    )
    store.elect("lost", ttl=600)
    sweeper.sweep()
    assert len(sweeper.groups) == SWEEP_GROUPS // 2
    silent = nodes.primary_of(key_slot(ELECTION_KEY.encode()))
    others = [node for node in nodes.primaries() if node.port != silent.port]
    names = [f"c:{number}" for number in range(400)]
    well = [
        name
        for name in names
        if any(node.serves(key_slot(due_key(partition_of(name)).encode())) for node in others)
    ]
    # One in each group.
    found = set({group_of(partition_of(name)): name for name in well}.values())
    assert {group_of(partition_of(name)) for name in found} - sweeper.groups
    for name in found:
        bench.enqueue(name)
        bench.overdue_now(name)

    def all_are_sent() -> bool:
        sweeper.sweep()
        return sent.conversations == found

    with Silent(nodes, silent):
        # Those of the worker that is lost too, though nobody can take its groups.
        until(all_are_sent, 60, what="turns of the other shards")
    assert len(sweeper.groups) == SWEEP_GROUPS // 2
    store.close()


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


@dataclass(frozen=True)
class Half:
    """A cluster of which a shard is silent.

    Attributes:
        shard: The address of the silent one.
        partitions: How many partitions are on it.
        lost: A conversation on it, with a turn that waits.
        found: One on each of the other shards: the turns of the first have ended.
    """

    bench: Bench
    shard: str
    partitions: int
    lost: str
    found: list[str]


@pytest.fixture(scope="module")
def half(nodes: Cluster) -> Iterator[Half]:
    """For several tests: each new client waits once until it takes the shard for silent."""
    nodes.empty()
    bench = on_redis(nodes.url, redis_timeout=TIMEOUT)
    # What the gateway reads with each request is elsewhere.
    others = [key_slot(key.encode()) for key in (KEYS, KEYED, "agentapi:gateway:local:rate")]
    silent = next(node for node in nodes.primaries() if not any(map(node.serves, others)))
    lost = conversation_on(nodes, silent)
    found = [conversation_on(nodes, node) for node in nodes.primaries() if node.id != silent.id]
    for conversation in (found[0], lost):
        lease = claimed(bench, conversation)
        bench.store.commit(lease, completed(lease.turn_id))
    for conversation in (lost, *found):
        bench.enqueue(conversation)
    partitions = [p for p in range(PARTITIONS) if silent.serves(key_slot(due_key(p).encode()))]
    with Silent(nodes, silent):
        yield Half(bench, f"127.0.0.1:{silent.port}", len(partitions), lost, found)
    bench.store.close()


def names(page: Paged[TurnSummary] | Paged[ConversationSummary]) -> set[str]:
    return {each.conversation_id for each in page.items}


@contextmanager
def in_time() -> Iterator[None]:
    """It may wait for the silent shard, but not for each of its partitions, nor again and again."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 8 * TIMEOUT


def test_lists_have_what_the_other_shards_answer(half: Half) -> None:
    lists, missing = half.bench.store.lists, half.partitions
    with in_time(), pytest.raises(StoreUnavailable, match=f"{missing} of 256 partitions"):
        lists.turns(TurnQuery(), 100)
    with in_time():
        turns = lists.turns(TurnQuery(), 2, partial=True)
    assert turns.missing == Missing(partitions=missing, shards=(half.shard,))
    assert turns.cursor is not None
    rest = lists.turns(TurnQuery(), 100, turns.cursor, partial=True)
    assert (len(turns.items), len(rest.items)) == (2, 1)
    assert names(turns) | names(rest) == set(half.found)
    with in_time():
        conversations = lists.conversations(ConversationQuery(), 100, partial=True)
    assert (names(conversations), conversations.missing) == (set(half.found), turns.missing)
    with in_time():
        assert lists.approvals(TurnQuery(), 100, partial=True).missing == turns.missing
    with in_time():
        [counted] = lists.counts([0, time.time() + 60])
    assert counted.accepted == 3
    of_one = TurnQuery(conversation_id=half.found[0])
    assert lists.turns(of_one, 100).missing is None
    with in_time(), pytest.raises(StoreUnavailable):
        lists.turns(TurnQuery(conversation_id=half.lost), 100, partial=True)


def test_ends_of_a_silent_shard_come_when_it_is_back(half: Half, nodes: Cluster) -> None:
    lists = half.bench.store.lists
    with in_time():
        first = lists.ends("start", 100)
    assert first.missing == Missing(partitions=half.partitions)
    assert [end.conversation_id for end in first.ends] == [half.found[0]]
    with in_time(), pytest.raises(StoreUnavailable, match="would be incomplete"):
        list(follow(lists, first.position, 0, lambda _: True))
    port = int(half.shard.rpartition(":")[2])
    nodes.process(port).signal(signal.SIGCONT)
    later: list[Ends] = []

    def came() -> bool:
        later.append(lists.ends(later[-1].position if later else first.position, 100))
        return later[-1].missing is None

    until(came, 60, "the shard's answer")
    nodes.process(port).signal(signal.SIGSTOP)
    assert [end.conversation_id for found in later for end in found.ends] == [half.lost]


def test_the_fleet_without_a_shard(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    store, settings = half.bench.store, half.bench.settings
    reader = FleetReader(settings, store)
    monkeypatch.setattr("orchestrator.fleet.ask_workers", lambda *_, **__: [])
    with in_time():
        seen = reader.read()
    assert (seen.redis_fault, seen.broker_fault) == (None, None)
    assert seen.turns is not None
    assert (seen.turns.ready, seen.turns.missing) == (
        2,
        Missing(partitions=half.partitions, shards=(half.shard,)),
    )
    assert half.shard in seen.gaps[0]
    with io.StringIO() as text:
        Console(file=text, width=300).print(frame(seen, width=300))
        assert f"{half.partitions} of 256 partitions are missing" in text.getvalue()
    reader.close()
    gauges = FleetGauges(store, settings.queues)
    with in_time():
        values = {
            sample.name: sample.value
            for family in gauges.collect()
            for sample in family.samples
            if not sample.labels
        }
    assert values["agentapi_store_up"] == 1
    assert values["agentapi_partitions_missing"] == half.partitions
    # An autoscaler must not take a part for all turns.
    assert gauges.demand()[0] == "503 Service Unavailable"


async def test_pages_and_the_api_without_a_shard(half: Half, nodes: Cluster) -> None:
    """The console shows the rest and says so. The API refuses a list that would lack entries."""
    settings = load_gateway_settings(
        redis_url=half.bench.settings.redis_url, broker_url="memory://", redis_timeout=2
    )
    app = create_app(settings)
    gateway: Gateway = app.state.gateway
    gate = RequestGate(app, Authenticator(gateway), BodyReader(settings))
    transport = httpx2.ASGITransport(app=gate)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://localhost", timeout=60
    ) as client:
        # A client that makes its map of the cluster may ask the silent server first.
        hung = nodes.process(int(half.shard.rpartition(":")[2]))
        hung.signal(signal.SIGCONT)
        assert (await client.get("/console/turns")).status_code == 200
        hung.signal(signal.SIGSTOP)
        for path in ("turns", "conversations", "approvals", ""):
            with in_time():
                answer = await client.get(f"/console/{path}".rstrip("/"))
            assert answer.status_code == 200, answer.text
            assert f"{half.partitions} of 256 partitions are missing" in answer.text
            assert half.shard in answer.text
        refused = await client.get("/turns")
        ready = (await client.get("/readyz")).json()
    await gateway.aclose()
    assert ready["redis"] == "ok"
    assert refused.status_code == 503, refused.text
    assert refused.headers["retry-after"] == "1"
    error = refused.json()["error"]
    assert error["code"] == "store_unavailable"
    assert "Repeat the call" in error["message"]
    assert half.shard not in error["message"]


def test_commands_print_the_rest_and_fail(
    half: Half, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTAPI_REDIS_URL", half.bench.settings.redis_url)
    monkeypatch.setenv("AGENTAPI_BROKER_URL", "memory://")
    monkeypatch.setenv("AGENTAPI_REDIS_TIMEOUT", str(TIMEOUT))
    monkeypatch.setattr(sys, "argv", ["agentapi", "turns", "--json"])
    with in_time(), pytest.raises(SystemExit) as ended:
        command_line()
    said = capsys.readouterr()
    assert ended.value.code == ExitCode.UNAVAILABLE
    listed = {json.loads(line)["conversation_id"] for line in said.out.splitlines()}
    assert listed == set(half.found)
    assert f"{half.partitions} of 256 partitions are missing" in said.err
