"""Capacity planning: the formula, the routing, and the simulation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console

from agentapi.errors import ConfigurationError, InvalidInput
from agentapi.ids import PARTITIONS
from agentapi.redis.keys import conversations_prefix
from orchestrator.capacity import (
    Costs,
    Fleet,
    Load,
    Lost,
    Outage,
    Outcome,
    Simulation,
    plan,
    read_costs,
)
from orchestrator.capacity.machines import Core, Queues, Slots
from orchestrator.capacity.plan import Rules
from orchestrator.capacity.routing import PARTITION_SLOTS, hottest_share, shards_of_partitions
from orchestrator.capacity.summary import spread
from orchestrator.cli.capacity_tables import print_plan

COSTS = read_costs()
FREE = COSTS.model_copy(
    update={
        name: 0.0
        for name, value in COSTS.model_dump().items()
        if isinstance(value, float) and name.endswith("_ms")
    }
)
"""Everything takes no time, so that results can be worked out by hand."""


def test_slots_are_those_of_the_keys() -> None:
    from redis.crc import key_slot

    for partition in (0, 7, 255):
        key = f"{conversations_prefix(partition)}some:meta"
        assert PARTITION_SLOTS[partition] == key_slot(key.encode())


@given(st.integers(1, 256), st.booleans())
def test_every_shard_and_partition_is_used(shards: int, balanced: bool) -> None:
    found = shards_of_partitions(shards, balanced=balanced)
    assert len(found) == PARTITIONS
    assert set(found) <= set(range(shards))
    if balanced:
        counts = Counter(found)
        assert len(counts) == shards
        assert max(counts.values()) - min(counts.values()) <= 1


def test_equal_ranges_of_slots_are_unequal_shares_of_partitions() -> None:
    assert hottest_share(12, balanced=True) == 22 / 256
    assert hottest_share(12, balanced=False) == 29 / 256


def test_the_plan_grows_with_what_decides() -> None:
    slow = Load(turns_per_second=100, model_seconds=30, model_calls=1, conversations=1)
    found = plan(slow, COSTS, Rules(spare=0.0, full=1.0))
    assert found.in_flight == 3000
    assert (found.fleet.workers, found.worker_bound) == (47, "slots")
    fast = Load(turns_per_second=2000, model_seconds=0, model_calls=1, conversations=1)
    found = plan(fast, COSTS, Rules(spare=0.5, busy=0.5, turn_retention=60, events_retention=60))
    assert found.worker_bound == "cores"
    assert found.fleet.workers == pytest.approx(2000 * COSTS.worker_turn_ms / 1000 * 4, abs=1)
    many = Load(turns_per_second=1, conversations=100_000_000)
    found = plan(many, COSTS)
    assert found.shard_bound == "memory"
    assert found.fleet.shards >= found.store_gib / 8
    assert found.store_gib == found.messages_gib + found.turns_gib + found.events_gib
    with pytest.raises(InvalidInput, match="256 shards"):
        plan(Load(turns_per_second=1, conversations=10**10), COSTS)


@given(st.floats(1, 1e4), st.floats(1, 3), st.floats(0, 60))
@settings(max_examples=50)
def test_more_load_never_needs_less(rate: float, calls: float, seconds: float) -> None:
    def fleet(rate: float) -> Fleet:
        load = Load(turns_per_second=rate, model_calls=calls, model_seconds=seconds)
        return plan(load, COSTS, Rules(shard_gib=1000)).fleet

    less, more = fleet(rate), fleet(rate * 1.5)
    assert less.workers <= more.workers
    assert less.shards <= more.shards
    assert less.gateways <= more.gateways


@pytest.mark.parametrize(
    "wrong", [{"turns_per_second": 0}, {"turns_per_second": 1, "streamed": 2}, {}]
)
def test_loads_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Load.model_validate(wrong)


def test_costs_of_another_machine(tmp_path: Path) -> None:
    mine = tmp_path / "costs.json"
    mine.write_text(COSTS.model_copy(update={"worker_turn_ms": 99.0}).model_dump_json())
    assert read_costs(mine).worker_turn_ms == 99.0
    mine.write_text('{"measured_on": "here"}')
    with pytest.raises(ConfigurationError, match="worker_turn_ms: Field required"):
        read_costs(mine)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_costs(tmp_path / "none.json")


def test_a_core_does_one_thing_at_a_time() -> None:
    core = Core()
    assert [core.work(0, 2), core.work(1, 3), core.work(10, 1)] == [2, 5, 11]
    assert core.busy == 6


def test_queues_are_served_one_after_the_other() -> None:
    queues = Queues(3)
    for queue, turn in ((0, 1), (0, 2), (2, 3), (1, 4)):
        queues.put(queue, turn)
    assert [queues.take() for _ in range(4)] == [1, 4, 3, 2]
    assert queues.length == 0


def test_slots_go_to_whoever_has_waited_longest() -> None:
    slots = Slots(2, 2)
    assert [slots.take() for _ in range(5)] == [0, 1, 0, 1, None]
    slots.give(1)
    assert slots.take() == 1
    slots.lose(0)
    slots.give(0)
    assert slots.take() is None


def simulated(load: Load, fleet: Fleet, costs: Costs = FREE, **more: object) -> Simulation:
    return Simulation(load=load, fleet=fleet, costs=costs, steady=True, **more)  # type: ignore[arg-type]


ONE_SECOND = Load(turns_per_second=1, model_seconds=1, model_calls=1)


def test_a_full_fleet_by_hand() -> None:
    arrivals = [(0.0, number) for number in range(10)]
    outcome = simulated(ONE_SECOND, Fleet(workers=2, slots=2), arrivals=arrivals).run()
    assert sorted(outcome.ended_at) == pytest.approx([1, 1, 1, 1, 2, 2, 2, 2, 3, 3])
    assert (outcome.ended, outcome.most_in_flight, outcome.most_waiting) == (10, 4, 6)
    assert outcome.delay.longest == pytest.approx(2)


def test_turns_of_a_conversation_run_one_after_the_other() -> None:
    outcome = simulated(ONE_SECOND, Fleet(workers=9), arrivals=[(0.0, 5)] * 3).run()
    assert list(outcome.ended_at) == pytest.approx([1, 2, 3])
    assert outcome.most_in_flight == 1


def test_a_hot_conversation_heats_one_shard() -> None:
    costs = FREE.model_copy(update={"store_turn_ms": 500.0})
    outcome = simulated(
        ONE_SECOND, Fleet(workers=1, shards=4), costs, arrivals=[(0.0, 5)] * 20
    ).run()
    assert outcome.mean_shard == pytest.approx(outcome.hottest_shard / 4)


@given(st.integers(0, 2**16), st.floats(0.1, 9), st.integers(1, 3), st.booleans())
@settings(max_examples=25, deadline=None)
def test_no_turn_is_lost(seed: int, at: float, workers: int, away: bool) -> None:
    load = Load(turns_per_second=20, model_seconds=1, model_calls=1.5, conversations=30)
    outcome = Simulation(
        load=load,
        fleet=Fleet(workers=4, slots=8),
        costs=COSTS,
        seconds=10,
        seed=seed,
        lost=Lost(at=at, workers=workers),
        outage=Outage(at=at / 2, seconds=5) if away else None,
    ).run()
    expected = Simulation(
        load=load, fleet=Fleet(workers=40, slots=64), costs=FREE, seconds=10, seed=seed
    ).run()
    assert outcome.ended == expected.ended
    assert outcome.delay.median >= 0


def test_lost_turns_come_back_after_the_lease() -> None:
    arrivals = [(number / 100, number) for number in range(100)]
    load = Load(turns_per_second=1, model_seconds=30, model_calls=1)
    lost = Lost(at=5.0, workers=1)
    outcome = simulated(load, Fleet(workers=4, slots=64), arrivals=arrivals, lost=lost).run()
    assert outcome.taken_over == 25
    assert outcome.recovery is not None
    # A lease of 10 s that was renewed up to 3 s ago, and a sweep each second.
    assert 7 <= outcome.recovery.median <= outcome.recovery.longest <= 11.5


def test_a_reply_that_was_not_committed_is_asked_for_again() -> None:
    costs = FREE.model_copy(update={"worker_turn_ms": 4000.0})
    lost = Lost(at=4.0, workers=1)
    outcome = simulated(
        ONE_SECOND, Fleet(workers=2), costs, arrivals=[(0.0, 0), (0.0, 1)], lost=lost
    ).run()
    assert (outcome.ended, outcome.taken_over) == (2, 1)


def test_turns_wait_for_a_provider_and_all_wake() -> None:
    load = Load(turns_per_second=10, model_seconds=1, model_calls=1)
    away = Outage(at=10, seconds=60)
    fleet = Fleet(workers=2, slots=64)
    outcome = Simulation(load=load, fleet=fleet, costs=FREE, seconds=80, outage=away).run()
    # While they wait, they hold no slot: only the turns that arrive afterwards run.
    assert outcome.most_waiting > 550
    assert outcome.most_in_flight < 128
    assert outcome.backlog is not None
    assert outcome.backlog < 10 + 30 + 1


def test_a_sweep_that_cannot_keep_up_delays_those_that_wait() -> None:
    load = Load(turns_per_second=10, model_seconds=1, model_calls=1)
    away = Outage(at=10, seconds=60)
    slow = FREE.model_copy(update={"dispatch_ms": 500.0})

    def outcome(workers: int) -> Outcome:
        fleet = Fleet(workers=workers, slots=64)
        return Simulation(load=load, fleet=fleet, costs=slow, seconds=80, outage=away).run()

    one, four = outcome(1), outcome(4)
    # 600 turns wait; a worker wakes two of them in a second.
    assert one.most_waiting > 550
    assert one.sweep_behind > 100
    assert one.backlog is not None
    assert one.backlog > 200
    # Workers share the sweep.
    assert four.backlog is not None
    assert four.backlog < one.backlog / 2


def test_the_sweep_of_workers_that_are_lost_falls_to_the_others() -> None:
    costs = FREE.model_copy(update={"dispatch_ms": 100.0})
    load = Load(turns_per_second=40, model_seconds=10, model_calls=1)
    lost = Lost(at=5.0, workers=19)
    outcome = Simulation(
        load=load, fleet=Fleet(workers=20, slots=64), costs=costs, seconds=6, lost=lost
    ).run()
    # The only worker that is left sends all their wake-ups, ten in a second.
    assert outcome.taken_over > 100
    assert outcome.sweep_behind > 10


def test_the_same_seed_gives_the_same_outcome() -> None:
    load = Load(turns_per_second=50)
    runs = [
        Simulation(load=load, fleet=Fleet(workers=2), costs=COSTS, seconds=5, seed=seed).run()
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_values_of_many_turns() -> None:
    found = spread([float(value) for value in range(101)])
    assert (found.median, found.p99, found.longest) == (50, 99, 100)
    assert spread([]).longest == 0


def test_the_command() -> None:
    command = [sys.executable, "-m", "orchestrator.cli.main", "capacity"]

    wide = {**os.environ, "COLUMNS": "200"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, check=False, env=wide
        )

    shown = run("5", "--simulate", "--seconds", "5", "--outage", "3")
    assert shown.returncode == 0, shown.stderr
    assert "worker processes" in shown.stdout
    assert "provider away 3 s" in shown.stdout
    assert "provider back to last wake-up" in shown.stdout
    as_json = run("5", "--simulate", "--seconds", "5", "--outage", "3", "--json")
    planned, *cases = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert planned["fleet"]["workers"] == 2
    assert [case["case"] for case in cases] == ["load", "1 of 2 workers dies", "provider away 3 s"]
    wrong = run("5", "--model-calls", "0")
    assert wrong.returncode == 2
    assert "--model-calls is 0" in wrong.stderr


def test_the_plan_says_where_conversations_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.capacity_tables.console", Console(width=200))
    for (archived, after), texts in {
        (0.0, 0.0): ["of 1,000 conversations", "until their retention ends"],
        (0.25, 0.0): [
            "of 750 conversations; a marker of each of the 250 in",
            "250 conversations, 0 ended turns",
        ],
        (0.0, 3_600.0): [
            "of 1,000 conversations",
            "a list entry of each of the 238,320 in the archive",
            "0 conversations, 238,320 ended turns",
        ],
    }.items():
        load = Load(turns_per_second=1, conversations=1_000, archived=archived)
        planned = plan(load, COSTS, Rules(archive_turns_after=after))
        print_plan(planned, load, as_json=False)
        shown = " ".join(capsys.readouterr().out.split())
        assert all(text in shown for text in texts), shown
        assert ("disks, a month" in shown) == bool(archived or after)


def test_archived_conversations_cost_disk_instead_of_memory() -> None:
    costs = COSTS.model_copy(
        update={
            "conversation_bytes": 200.0,
            "message_overhead_bytes": 20.0,
            "archive_marker_bytes": 250.0,
            "archive_conversation_bytes": 1000.0,
            "archive_message_overhead_bytes": 100.0,
        }
    )
    everything = Load(turns_per_second=1, conversations=2**20, messages_kept=10, message_bytes=500)
    here = plan(everything, costs, Rules(disk_gib_month=10.0))
    away = plan(everything.model_copy(update={"archived": 0.5}), costs, Rules(disk_gib_month=10.0))
    assert (here.archive_gib, here.archive_month) == (0, 0)
    assert here.messages_gib == pytest.approx((200 + 10 * 520) / 1024)
    assert away.messages_gib == pytest.approx(here.messages_gib / 2 + 125 / 1024)
    assert away.archive_gib == pytest.approx((1000 + 10 * 600) / 2 / 1024)
    assert away.archive_month == pytest.approx(away.archive_gib * 20)
    assert away.month - here.month == pytest.approx(away.archive_month)


def test_archived_turns_cost_disk_instead_of_memory() -> None:
    costs = COSTS.model_copy(
        update={
            "turn_bytes": 400.0,
            "turn_message_factor": 0.0,
            "archive_turn_marker_bytes": 100.0,
            "archive_turn_bytes": 1000.0,
        }
    )
    load = Load(
        turns_per_second=1024, average=0.5, model_calls=1, message_bytes=100, conversations=1
    )
    rules = Rules(turn_retention=4096.0, events_retention=256.0)
    here, away, later, never = (
        plan(load, costs, replace(rules, archive_turns_after=after))
        for after in (0.0, 512.0, 128.0, 100_000.0)
    )
    assert (here.archive_turns, here.archive_turns_gib, here.archive_gib) == (0, 0, 0)
    assert here.turns_gib == pytest.approx(2**21 * 400 / 2**30)
    # Those of a busy time before they move, and of each other one the list entry.
    assert away.turns_gib == pytest.approx((2**19 * 400 + 1.5 * 2**20 * 100) / 2**30)
    assert away.archive_turns == 1.5 * 2**20
    assert away.archive_gib == away.archive_turns_gib
    assert away.archive_gib == pytest.approx(1.5 * 2**20 * (1000 + 2 * 100) / 2**30)
    assert away.store_gib == away.messages_gib + away.turns_gib + away.events_gib
    # Not before their events have expired.
    assert later.archive_turns == 2**21 - 2**18
    assert (never.archive_turns, never.turns_gib) == (0, here.turns_gib)
