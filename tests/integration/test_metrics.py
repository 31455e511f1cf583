"""What runtimes and stores count, on a real Redis."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agentapi import Agent, tool
from agentapi.conversation.window import Window
from agentapi.errors import ProviderUnavailable, StoreUnavailable
from agentapi.metrics import install, record_into, recorder
from agentapi.signals import LeaseLost
from agentapi.stores import Backlog, Claim
from agentapi.turns import Turn
from orchestrator.gateway.measuring import REMEMBERED, FleetGauges
from tests.conformance.stores import model_step
from tests.integration.fleet import Busy, Fleet

Value = Callable[..., float]


@tool
def fail() -> str:
    """Fail."""
    raise ValueError("with the user's words in it")


AGENTS = [
    Agent(name="plain", provider="offline", tools=[fail]),
    Agent(name="busy", provider="moody"),
    Agent(name="broken", provider="broken"),
    Agent(name="two", provider=["moody", "offline"]),
]


@pytest.fixture
def value() -> Iterator[Value]:
    before, registry = recorder(), CollectorRegistry()
    record_into(registry)

    def read(name: str, **labels: str) -> float:
        return sum(
            sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == f"agentapi_{name}" and labels.items() <= sample.labels.items()
        )

    yield read
    install(before)


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    return make_fleet(
        agents=AGENTS,
        park_after=1,
        provider_max_retries=1,
        prices={"offline:offline-1": {"input": 1_000_000, "output": 0}},
    )


def run(fleet: Fleet, agent: str, message: str = "hi", **more: Any) -> Turn:
    turn = fleet.enqueue(agent, message, **more)
    fleet.execute(turn)
    return turn


def test_a_completed_turn(fleet: Fleet, value: Value) -> None:
    run(fleet, "plain")
    assert value("turns_accepted_total", agent="plain") == 1
    assert value("attempts_total", cause="first") == 1
    ended = {"agent": "plain", "status": "completed", "reason": "completed"}
    assert value("turns_ended_total", **ended) == 1
    assert value("turn_duration_seconds_count", agent="plain", status="completed") == 1
    assert value("attempt_duration_seconds_count", agent="plain", outcome="completed") == 1
    assert value("model_calls_total", provider="offline", outcome="ok") == 1
    tokens = value("tokens_total", provider="offline", kind="input")
    assert tokens > 0
    assert value("cost_total", provider="offline") == pytest.approx(tokens)


def test_a_repeated_enqueue_is_one_turn(fleet: Fleet, value: Value) -> None:
    for _ in range(2):
        fleet.enqueue("plain", "hi", conversation_id="c", idempotency_key="k")
    assert value("turns_accepted_total") == 1


def test_a_failed_turn_has_its_code_as_reason(fleet: Fleet, value: Value) -> None:
    run(fleet, "broken")
    assert value("turns_ended_total", agent="broken", status="failed", reason="internal") == 1
    assert value("model_calls_total", provider="broken", outcome="internal") == 1


def test_a_failed_tool_is_counted_and_an_invented_one_is_not(fleet: Fleet, value: Value) -> None:
    run(fleet, "plain", "/fail {}")
    run(fleet, "plain", '/invented_by_the_model {"a": 1}')
    assert value("tool_calls_total", tool="fail", outcome="failed") == 1
    assert value("tool_duration_seconds_count", tool="fail") == 1
    assert value("tool_calls_total") == 1


def test_a_provider_that_asks_to_wait(fleet: Fleet, value: Value) -> None:
    Busy.waits.extend([60.0])
    turn = run(fleet, "busy")
    assert value("model_calls_total", provider="moody", outcome=ProviderUnavailable.code) == 1
    assert value("attempt_duration_seconds_count", agent="busy", outcome="parked") == 1
    assert value("provider_held", provider="moody") == 1
    run(fleet, "busy", conversation_id="another")
    assert value("provider_waits_total", provider="moody", reason="hold") == 1
    fleet.app.store.cancel(turn.turn_id)
    cancelled = {"agent": "unknown", "status": "cancelled", "reason": "not_running"}
    assert value("turns_ended_total", **cancelled) == 1


def test_a_refused_write_is_counted(fleet: Fleet, value: Value) -> None:
    turn = fleet.enqueue("plain", "hi")
    store = fleet.app.store
    claim = store.claim(turn.conversation_id, turn.turn_id, owner="w", token="t", window=Window())
    assert isinstance(claim, Claim)
    store.release(claim.lease)
    fleet.execute(turn)
    with pytest.raises(LeaseLost):
        store.record(claim.lease, 0, model_step())
    assert value("writes_refused_total", script="record") == 1
    assert value("attempts_total", cause="worker_stopped") == 1


def test_scripts_and_the_event_loop_are_timed(fleet: Fleet, value: Value) -> None:
    run(fleet, "plain")
    for script in ("enqueue", "claim", "commit"):
        assert value("redis_script_duration_seconds_count", script=script) >= 1


class Store:
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0
        self.away = False

    def backlog(self) -> Backlog:
        self.reads += 1
        if self.away:
            raise StoreUnavailable("away")
        parked = {"provider": 2, "a reason of a newer release": 1}
        return Backlog(ready={0: 1, 8: 2, 1: 4}, running=3, parked=parked, oldest_ready=7.5)

    def since_sweep(self) -> float | None:
        return 0.5


def gauges(collector: FleetGauges) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("agentapi_"), *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_the_gauges_of_the_fleet() -> None:
    found = gauges(FleetGauges(Store(), queues=8))
    assert found["turns_ready", "agentapi.0"] == 3
    assert found["turns_ready", "agentapi.1"] == 4
    assert found["turns_ready", "agentapi.7"] == 0
    assert found["turns_running",] == 3
    assert found["turns_parked", "provider"] == 2
    assert found["turns_parked", "approval"] == 0
    assert found["turns_parked", "other"] == 1
    assert found["oldest_ready_turn_age_seconds",] == 7.5
    assert found["sweep_age_seconds",] == 0.5
    assert found["store_up",] == 1


def test_the_demand_is_what_waits_and_what_runs() -> None:
    store = Store()
    collector = FleetGauges(store, queues=8)
    status, body = collector.demand()
    assert status == "200 OK"
    assert json.loads(body) == {
        "turns": 10,
        "turns_ready": 7,
        "turns_running": 3,
        "oldest_ready_seconds": 7.5,
    }
    # From the same reading.
    gauges(collector)
    assert store.reads == 1


def test_many_who_ask_cost_redis_one_reading() -> None:
    now, store = 100.0, Store()
    collector = FleetGauges(store, 8, clock=lambda: now)
    threads = [threading.Thread(target=collector.collect) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.reads == 1
    now += REMEMBERED
    collector.collect()
    assert store.reads == 2


def test_an_unreachable_redis_shows_no_old_numbers() -> None:
    now, store = 100.0, Store()
    collector = FleetGauges(store, 8, clock=lambda: now)
    gauges(collector)
    store.away, now = True, now + REMEMBERED
    assert gauges(collector) == {("store_up",): 0}
    # An autoscaler must not take silence for a fleet without work.
    status, body = collector.demand()
    assert (status, json.loads(body)) == ("503 Service Unavailable", {"error": "store_unavailable"})
