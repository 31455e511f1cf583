"""Snapshots of the fleet: what the store, the providers' budgets and the workers' answers give."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentapi import Settings, load_settings
from agentapi.metrics.activity import ProviderUse, WorkerActivity
from agentapi.metrics.pace import Done
from agentapi.stores import Ending
from agentapi.stores.backlog import ReadyTurn
from agentapi.turns import TurnError, TurnStatus
from orchestrator import fleet
from orchestrator.fleet import FleetReader, WorkerState
from tests.conformance.stores import Bench, on_redis

Answers = list[dict[str, Any]]


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    bench = on_redis(redis_url)
    yield bench
    bench.store.close()


@pytest.fixture
def answers() -> Answers:
    """What the workers answer."""
    return []


@pytest.fixture
def reader(
    settings_for: Callable[..., Settings],
    bench: Bench,
    answers: Answers,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FleetReader]:
    reader = FleetReader(settings_for(), bench.store)
    monkeypatch.setattr("orchestrator.fleet.ask_workers", lambda *_, **__: list(answers))
    yield reader
    reader.close()


def answer(name: str, process: str = "p", **said: Any) -> dict[str, Any]:
    return {name: WorkerActivity(process=process, **{"slots": 4, **said}).to_json()}


def test_an_idle_fleet_without_workers(reader: FleetReader) -> None:
    found = reader.read()
    assert (found.workers, found.slots, found.used, found.answering) == ([], 0, 0, 0)
    assert (found.redis_fault, found.broker_fault, found.failures) == (None, None, [])
    assert found.turns is not None
    assert (found.turns.ready, found.turns.running, found.turns.oldest) == (0, 0, None)
    assert set(found.turns.ready_by_queue.values()) == {0}


def test_turns_and_failures(reader: FleetReader, bench: Bench) -> None:
    for name in ("first", "second"):
        turn_id = bench.enqueue(name)
        error = TurnError(code=f"{name}_code", message="words")
        lease = bench.claim(turn_id, name).lease
        bench.store.commit(lease, Ending(status=TurnStatus.FAILED, error=error))
        time.sleep(0.002)
    ready = bench.enqueue("ready")
    bench.claim(bench.enqueue("runs"), "runs")
    parked = bench.claim(bench.enqueue("waits"), "waits").lease
    assert bench.store.park(parked, 600, failures=1, steps=0, reason="provider")
    found = reader.read()
    assert found.turns is not None
    assert (found.turns.ready, found.turns.running) == (1, 1)
    assert sum(found.turns.ready_by_queue.values()) == 1
    assert found.turns.parked == {"provider": 1}
    assert found.turns.oldest == ReadyTurn(turn_id=ready, conversation_id="ready", agent="a")
    assert [turn.error.code for turn in found.failures or () if turn.error] == [
        "second_code",
        "first_code",
    ]


def test_workers_add_up(reader: FleetReader, answers: Answers) -> None:
    answers += [
        answer("one@a", "1", used=4, minute=Done(ended=6, tokens=10, cost=0.5)),
        answer("two@a", "2", used=1, minute=Done(ended=1, failed=1)),
        answer("three@a", "3", stopping=True),
        answer("four@a", "4", accepting=False),
        answer("five@a", "5", redis_away=True),
        {"old@a": {"error": "no such command"}},
    ]
    found = reader.read()
    assert (found.slots, found.used, found.answering) == (20, 5, 6)
    assert found.minute == Done(ended=7, failed=1, tokens=10, cost=0.5)
    assert {worker.name: worker.state for worker in found.workers} == {
        "one@a": WorkerState.FULL,
        "two@a": WorkerState.READY,
        "three@a": WorkerState.STOPPING,
        "four@a": WorkerState.STALLED,
        "five@a": WorkerState.NO_REDIS,
        "old@a": WorkerState.UNKNOWN,
    }


def test_a_worker_that_no_longer_answers(
    reader: FleetReader, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers += [answer("one@a", "1", minute=Done(ended=5)), answer("two@a", "2")]
    reader.read()
    del answers[0]
    found = reader.read()
    assert [worker.state for worker in found.workers] == [WorkerState.SILENT, WorkerState.READY]
    assert (found.slots, found.minute) == (4, Done())
    # Nobody asks: it stays as it was.
    again = reader.read(ask_workers=False)
    assert [worker.state for worker in again.workers] == [WorkerState.SILENT, WorkerState.READY]
    # It was started again.
    answers.append(answer("one@a", "3"))
    found = reader.read()
    assert [(w.name, w.state) for w in found.workers] == [
        ("one@a", WorkerState.READY),
        ("two@a", WorkerState.READY),
    ]
    monkeypatch.setattr(fleet, "REMEMBERED", 0.0)
    answers.clear()
    assert reader.read().workers == []


def test_providers(reader: FleetReader, answers: Answers, redis_url: str) -> None:
    limited = {"busy": ProviderUse(requests=10, tokens=None), "plain": ProviderUse()}
    answers.append(answer("one@a", providers=limited))
    traffic = reader._traffic
    traffic.failed("busy", "x", hold=60, counts=False)
    for n in range(5):
        traffic.failed("plain", str(n), hold=None, counts=True)
    busy, plain = reader.read().providers
    assert (busy.name, busy.open, busy.limit, busy.requests) == ("busy", None, limited["busy"], 0)
    assert 0 < busy.held <= 60
    assert (plain.name, plain.held, plain.limit) == ("plain", 0, ProviderUse())
    assert plain.open is not None


def test_what_takes_long_is_read_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    reads: list[float] = []

    def read() -> float:
        reads.append(now[0])
        now[0] += 0.5
        return reads[-1]

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    kept = fleet._Kept(read)
    assert (kept.get(), kept.get()) == (100.0, 100.0)
    now[0] = 109.9
    assert kept.get() == 100.0
    now[0] = 110.0
    assert kept.get() == 110.0
    assert reads == [100.0, 110.0]


def test_without_lists_there_are_no_failures(
    settings_for: Callable[..., Settings], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = FleetReader(settings_for(list_limit=0), bench.store)
    monkeypatch.setattr("orchestrator.fleet.ask_workers", lambda *_, **__: [])
    found = reader.read()
    assert (found.failures, found.redis_fault) == (None, None)
    reader.close()


def test_redis_is_away() -> None:
    settings = load_settings(redis_url="redis://127.0.0.1:1/0", redis_timeout=0.2)
    bench = on_redis(settings.redis_url)
    reader = FleetReader(settings, bench.store)
    found = reader.read()
    assert (found.turns, found.failures, found.workers) == (None, None, [])
    assert "out of reach" in str(found.redis_fault)
    assert "out of reach" in str(found.broker_fault)
    reader.close()
    bench.store.close()
