"""Compares one Valkey with other servers: Redis Cluster as store, RabbitMQ as broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.contenders.turn import TEXT
from benchmarks.contest import Servers
from benchmarks.results import Metric, Results
from benchmarks.running import Running, runtime
from benchmarks.stats import percentile
from orchestrator.stack import start_valkey
from orchestrator.stack.cluster import Cluster
from tests.system.packages import Missing
from tests.system.rabbitmq import RabbitMQ

CASE: Final = "stores and brokers"
ONE: Final = "one Valkey"
CLUSTER: Final = "Redis Cluster of 3 + 3, a Valkey as the broker"
SHARDS: Final = "Redis Cluster of 3, a Valkey as the broker"
RABBIT: Final = "one Valkey, RabbitMQ as the broker"
ALL: Final = (ONE, CLUSTER, RABBIT)

BLOCKS: Final = 5
"""How many times the stacks alternate in a round."""

_MS: Final = 1000

Urls: TypeAlias = tuple[str, str]
"""URLs of the store and the broker."""


def compare(
    results: Results, servers: Servers, *, turns: int, rounds: int, names: Sequence[str] = ALL
) -> None:
    """Run the same turns alternately on several stacks, each with one worker process.

    Args:
        results: Receives turns per second, latency and processor time.
        servers: Servers of the first stack; the other stacks have their own.
        turns: Turns of each stack in a round.
        rounds: Number of rounds.
        names: Which of `ONE`, `CLUSTER`, `SHARDS` and `RABBIT` to compare. Servers that cannot be
            installed are left out.
    """
    few = max(2, turns // BLOCKS)
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        for number, name in enumerate(names):
            folder = servers.folder / f"servers{number}"
            try:
                store, broker = stack.enter_context(SERVERS[name](servers, folder))
            except Missing as error:
                results.leave_out(name, str(error))
                continue
            where = replace(servers, redis_url=store)
            running[name] = stack.enter_context(runtime(where, broker_url=broker))
        for number in range(rounds):
            _round(results, running, f"{number}", few)


def _round(results: Results, running: dict[str, Running], name: str, few: int) -> None:
    names = list(running)
    seconds, cpu = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    single: dict[str, list[float]] = {who: [] for who in names}
    for block in range(BLOCKS):
        # Later stacks find a warmer machine, so the order changes too.
        for who in (*names[block % len(names) :], *names[: block % len(names)]):
            conversations = [f"s{name}-{block}-{number}" for number in range(few)]
            before = running[who].cpu()
            seconds[who] += running[who].run_all("plain", conversations)
            cpu[who] += running[who].cpu() - before
            single[who] += [running[who].ask("plain", TEXT) for _ in range(max(2, few // 10))]
    count = few * BLOCKS
    for who in names:
        for what, unit, value in (
            ("turns a second, 1 worker process", "1/s", count / seconds[who]),
            ("processor time of workers, a turn", "ms", cpu[who] / count * _MS),
            ("latency on an idle system, median", "ms", percentile(single[who], 0.5) * _MS),
            ("latency, 99th percentile", "ms", percentile(single[who], 0.99) * _MS),
        ):
            results.add(Metric(case=CASE, name=what, unit=unit, base=ONE), who, value)


@contextmanager
def _one(servers: Servers, folder: Path) -> Iterator[Urls]:
    yield servers.redis_url, servers.redis_url


@contextmanager
def _cluster(servers: Servers, folder: Path, replicas: int = 1) -> Iterator[Urls]:
    broker, url = start_valkey(folder / "broker")
    try:
        cluster = Cluster(folder, replicas=replicas)
        try:
            yield cluster.url, url
        finally:
            cluster.stop()
    finally:
        broker.stop()


@contextmanager
def _shards(servers: Servers, folder: Path) -> Iterator[Urls]:
    with _cluster(servers, folder, replicas=0) as urls:
        yield urls


@contextmanager
def _rabbit(servers: Servers, folder: Path) -> Iterator[Urls]:
    store, url = start_valkey(folder / "store")
    try:
        node = RabbitMQ(folder)
        try:
            node.start()
            yield url, node.url
        finally:
            node.stop()
    finally:
        store.stop()


SERVERS: Final[Mapping[str, Callable[[Servers, Path], AbstractContextManager[Urls]]]] = {
    ONE: _one,
    CLUSTER: _cluster,
    SHARDS: _shards,
    RABBIT: _rabbit,
}
