"""Redis or the broker fails under load: what was accepted is carried out, and said once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from agentapi import load_settings
from agentapi.errors import StoreUnavailable
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Child, Stack, start_valkey
from orchestrator.stack.processes import free_port
from orchestrator.stack.valkey import server_binary
from tests.faults import assert_all_came_true, flush_broker, paused, redis_down, until

AGENTS = ("tests.acceptance.agents",)
MESSAGE = '/count_up {"seconds": 0.2}'


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(
        tmp_path, agents=AGENTS, workers=2, flower=False, lease_ttl=3, heartbeat=1, dispatch_grace=1
    ) as running:
        yield running


def enqueue(orchestrator: Orchestrator, rounds: int = 5) -> list[TurnHandle]:
    return [
        orchestrator.enqueue("tools", MESSAGE, conversation_id=f"c:{number}")
        for _ in range(rounds)
        for number in range(10)
    ]


def said(stack: Stack, word: str) -> int:
    """The largest number of lines with a word that one worker wrote."""
    return max(worker.log.read_text().count(word) for worker in stack.workers)


def connections(client: redis.Redis) -> int:
    """How many connections the server has taken."""
    info: Any = client.info("stats")
    return int(info["total_connections_received"])


def restarted(stack: Stack) -> AbstractContextManager[None]:
    return redis_down(stack)


def stopped_for_five_seconds(stack: Stack) -> AbstractContextManager[None]:
    assert stack.valkey is not None
    return paused(stack.valkey)


@pytest.mark.parametrize(
    ("fault", "seconds"), [(restarted, 0), (stopped_for_five_seconds, 5), (restarted, 20)]
)
def test_redis_is_away(
    stack: Stack, fault: Callable[[Stack], AbstractContextManager[None]], seconds: float
) -> None:
    with Orchestrator(stack.settings) as orchestrator:
        handles = enqueue(orchestrator)
        until(lambda: handles[0].info().status.ended)
        with fault(stack):
            time.sleep(seconds)
        back = time.monotonic()
        handles += enqueue(orchestrator, rounds=1)
        assert_all_came_true(orchestrator, handles)
        print(f"\nall done {time.monotonic() - back:.1f} s after Redis was back")
    assert said(stack, "store.away") <= 2
    assert "Traceback" not in "".join(
        line for worker in stack.workers for line in worker.log.read_text().splitlines()
        if "agentapi" in line
    )  # fmt: skip


def test_redis_is_full(stack: Stack) -> None:
    client = redis.Redis.from_url(stack.redis_url)
    with Orchestrator(stack.settings) as orchestrator:
        handles = enqueue(orchestrator)
        until(lambda: handles[0].info().status.ended)
        client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreUnavailable, match=r"out of memory.*nothing was changed"):
            orchestrator.enqueue("tools", MESSAGE, conversation_id="c:0")
        time.sleep(2)
        client.config_set("maxmemory", "0")
        handles += enqueue(orchestrator, rounds=1)
        assert_all_came_true(orchestrator, handles)
    assert said(stack, "store.away") <= 2
    client.close()


def test_a_server_that_refuses_is_one_outage_in_the_log(tmp_path: Path) -> None:
    """A replica takes connections and refuses the first command: Celery would log each of them."""
    with (
        Stack(tmp_path, agents=AGENTS, workers=1, flower=False) as stack,
        Orchestrator(stack.settings) as orchestrator,
        redis.Redis.from_url(stack.redis_url) as client,
    ):
        orchestrator.enqueue("tools", "hi").result(timeout=150)
        [worker] = stack.workers
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        until(lambda: said(stack, "broker.lost"))
        until(lambda: said(stack, "store.away"))
        # It tries again and again.
        before = connections(client)
        until(lambda: connections(client) >= before + 5)
        client.execute_command("REPLICAOF", "NO", "ONE")
        until(lambda: said(stack, "broker.connected"))
        orchestrator.enqueue("tools", "hi").result(timeout=150)
        log = worker.log.read_text()
    for line in ("broker.lost", "broker.connected", "store.away", "store.back"):
        assert log.count(line) == 1, log
    assert "Connection to broker lost" not in log
    assert "Traceback" not in log
    assert re.search('broker.lost error="broker at redis://\\S+ refuses to work: ', log)


def test_the_broker_is_flushed(stack: Stack) -> None:
    with Orchestrator(stack.settings) as orchestrator:
        handles: list[TurnHandle] = []
        flushed = 0
        for _ in range(3):
            handles += enqueue(orchestrator, rounds=1)
            flushed += flush_broker(stack.redis_url)
        assert flushed > 0
        handles += enqueue(orchestrator, rounds=1)
        assert_all_came_true(orchestrator, handles)


def test_the_broker_is_away_and_redis_is_not(tmp_path: Path) -> None:
    broker, broker_url = start_valkey(tmp_path / "broker")
    port = int(broker_url.rpartition(":")[2].partition("/")[0])
    with Stack(
        tmp_path,
        agents=AGENTS,
        flower=False,
        broker_url=broker_url,
        dispatch_grace=1,
        redis_timeout=2,
    ) as stack, Orchestrator(stack.settings) as orchestrator:  # fmt: skip
        handles = enqueue(orchestrator, rounds=1)
        broker.stop()
        started = time.monotonic()
        handles += [orchestrator.enqueue("tools", MESSAGE, conversation_id="c:0")]
        assert time.monotonic() - started < 30
        time.sleep(3)
        broker, _ = start_valkey(tmp_path / "broker", port)
        handles += enqueue(orchestrator, rounds=1)
        assert_all_came_true(orchestrator, handles)
        assert said(stack, "broker.away") <= 2
    broker.stop()


def test_producers_are_told_within_the_timeout(tmp_path: Path) -> None:
    valkey, url = start_valkey(tmp_path)
    settings = load_settings(redis_url=url, redis_timeout=1)
    default = load_settings().redis_timeout
    with Orchestrator(settings) as orchestrator:
        orchestrator.enqueue("tools", "hi")
        with paused(valkey):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable, match=r"out of reach.*idempotency_key"):
                orchestrator.enqueue("tools", "hi")
            assert time.monotonic() - started < default
        valkey.stop()
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="out of reach"):
            orchestrator.enqueue("tools", "hi")
        assert time.monotonic() - started < default


def test_a_replica_takes_over_behind_sentinel(tmp_path: Path) -> None:
    master, master_url = start_valkey(tmp_path / "master")
    replica, replica_url = start_valkey(tmp_path / "replica")
    port = master_url.rpartition(":")[2].partition("/")[0]
    copy = redis.Redis.from_url(replica_url)
    copy.replicaof("127.0.0.1", port)
    original = redis.Redis.from_url(master_url)
    until(lambda: copy.info("replication")["master_link_status"] == "up")
    sentinel = start_sentinel(tmp_path, port)
    url = f"sentinel://127.0.0.1:{sentinel[1]}"
    try:
        with Stack(
            tmp_path, agents=AGENTS, flower=False, gateway=True, redis_url=url, lease_ttl=3,
            heartbeat=1, dispatch_grace=1,
        ) as stack, Orchestrator(stack.settings) as orchestrator:  # fmt: skip
            handles = enqueue(orchestrator)
            until(lambda: original.wait(1, 1000) == 1, what="the copy of all turns")
            master.kill()
            until(lambda: copy.info("replication")["role"] == "master", 150, "the promotion")
            handles += enqueue_when_possible(orchestrator)
            assert_all_came_true(orchestrator, handles)
            ready = f"{stack.gateway_url}/readyz"
            until(lambda: httpx2.get(ready, timeout=150).status_code == 200)
    finally:
        sentinel[0].stop()
        replica.stop()


def enqueue_when_possible(orchestrator: Orchestrator) -> list[TurnHandle]:
    deadline = time.monotonic() + 60
    while True:
        try:
            return enqueue(orchestrator, rounds=1)
        except StoreUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def start_sentinel(folder: Path, master_port: str) -> tuple[Child, int]:
    port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor mymaster 127.0.0.1 {master_port} 1\n"
        "sentinel down-after-milliseconds mymaster 1000\n"
        "sentinel failover-timeout mymaster 5000\n"
    )
    child = Child(
        "sentinel",
        [str(server_binary()), str(config), "--sentinel"],
        log=folder / "logs" / "sentinel.log",
    )
    client = redis.Redis(port=port)

    def sees_the_replica() -> bool:
        try:
            return bool(client.sentinel_slaves("mymaster"))
        except redis.ConnectionError:
            return False

    until(sees_the_replica, 150, "the sentinel's discovery")
    return child, port
