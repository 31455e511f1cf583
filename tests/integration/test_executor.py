"""One worker's executor on a real Redis, its deaths and its limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count

import pytest
import redis

from agentapi import EventType, TurnStatus
from agentapi.ids import partition_of
from agentapi.redis.keys import conversation_keys, turn_keys
from agentapi.stores import Claim, Wakeup
from agentapi.turns import Turn
from orchestrator import CancelOutcome
from tests.integration.fleet import AGENTS, Fleet, go_on, run_in_thread
from workers.errands import Errands
from workers.outage import Outage
from workers.upkeep.sweeper import Sweeper


def test_a_wake_up_that_comes_twice_says_how_the_turn_stands(
    make_fleet: Callable[..., Fleet],
) -> None:
    fleet = make_fleet()
    turn = fleet.enqueue("napper", "hi")
    first = fleet.execute(turn)
    assert first == {"status": "completed", "attempt": 1, "steps": 1, "tokens": first["tokens"]}
    assert fleet.execute(turn) == first
    assert len(fleet.producer.history(turn.conversation_id)) == 2


def test_poison(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(max_attempts=2)
    turn = fleet.enqueue("napper", "hi", conversation_id="c")
    behind = fleet.enqueue("napper", "and now?", conversation_id="c")
    for attempt in range(2):
        claim = fleet.app.store.claim(
            "c",
            turn.turn_id,
            owner="dies",
            token=f"{attempt}:token",
            window=AGENTS[0].definition.window,
            isolated=True,
        )
        assert isinstance(claim, Claim)
        assert fleet.app.store.perish("c", turn.turn_id, f"{attempt}:")
    assert fleet.execute(turn)["error"] == "poison"
    ended = fleet.turn(turn)
    assert ended.status is TurnStatus.FAILED
    assert ended.error is not None
    assert "2 times" in ended.error.message
    assert [wakeup.turn_id for wakeup in fleet.sent] == [behind.turn_id]
    assert fleet.execute(behind)["status"] == "completed"


def test_a_turn_that_runs_too_long(make_fleet: Callable[..., Fleet]) -> None:
    # Long enough for a busy machine to get to the nap.
    fleet = make_fleet(turn_timeout=2)
    turn = fleet.enqueue("napper", '/nap {"seconds": 100}')
    assert fleet.execute(turn)["error"] == "deadline"
    kept = fleet.producer.history(turn.conversation_id)
    assert [message["role"] for message in kept] == ["user", "assistant", "tool"]


def test_a_fault_of_ones_own_ends_the_turn_without_its_words_in_the_log(
    make_fleet: Callable[..., Fleet], caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet()
    turn = fleet.enqueue("broken", "hi")
    assert fleet.execute(turn)["error"] == "internal"
    error = fleet.turn(turn).error
    assert error is not None
    assert error.message.startswith("ZeroDivisionError")
    assert "turn.crashed" in caplog.text
    assert "the user's words" not in caplog.text


def test_steps_that_a_failover_has_lost_are_recorded_again(
    make_fleet: Callable[..., Fleet],
) -> None:
    fleet = make_fleet()
    turn = fleet.enqueue("napper", "/linger")
    thread, results = run_in_thread(fleet, turn)
    with redis.Redis.from_url(fleet.app.settings.redis_url) as client:
        # The new master has the lease and not what was recorded under it.
        assert client.delete(turn_keys(turn.turn_id).journal) == 1
    go_on.set()
    thread.join()
    assert (results[0]["status"], results[0]["steps"]) == ("completed", 3)
    assert len(fleet.producer.history(turn.conversation_id)) == 4


def test_a_cancelled_turn_stops_at_the_next_beat(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(heartbeat=0.1)
    turn = fleet.enqueue("napper", '/nap {"seconds": 100}', conversation_id="c")
    thread, results = run_in_thread(fleet, turn)
    assert fleet.producer.cancel(turn.turn_id) is CancelOutcome.REQUESTED
    thread.join(60)
    assert results[0]["status"] == "cancelled"
    assert fleet.producer.history("c") == []
    following = fleet.enqueue("napper", "What did I say?", conversation_id="c")
    assert fleet.execute(following)["status"] == "completed"


def test_a_worker_that_lost_its_lease_stops_and_writes_nothing(
    make_fleet: Callable[..., Fleet],
) -> None:
    fleet = make_fleet(heartbeat=60, lease_ttl=60)
    turn = fleet.enqueue("napper", "/linger")
    thread, results = run_in_thread(fleet, turn)
    expire_lease(fleet, turn)
    other = make_fleet()
    assert other.execute(turn)["status"] == "completed"
    go_on.set()
    thread.join(60)
    assert results == [{"status": "lost", "attempt": 1}]
    history = fleet.producer.history(turn.conversation_id)
    assert [message["role"] for message in history] == ["user", "assistant", "tool", "assistant"]
    assert "outcome of this call is unknown" in history[2]["content"]


def expire_lease(fleet: Fleet, turn: Turn) -> None:
    with redis.Redis.from_url(fleet.app.settings.redis_url) as client:
        client.hset(conversation_keys(turn.conversation_id).lease, "expires", 0)


def make_overdue(fleet: Fleet, *turns: Turn) -> None:
    """As if the time had passed in which their wake-ups should have been claimed."""
    with redis.Redis.from_url(fleet.app.settings.redis_url) as client:
        for turn in turns:
            due = conversation_keys(turn.conversation_id).due
            client.zadd(due, {turn.conversation_id: client.time()[0] * 1000 - 1000})


def waits(fleet: Fleet, *turns: Turn) -> list[float]:
    """Seconds until each turn's wake-up is late."""
    with redis.Redis.from_url(fleet.app.settings.redis_url) as client:
        keys = [(conversation_keys(t.conversation_id).due, t.conversation_id) for t in turns]
        found = [client.zscore(due, conversation) for due, conversation in keys]
        seconds, micros = client.time()
    return [(each or 0) / 1000 - seconds - micros / 1e6 for each in found]


def nothing_waits_in_the_broker(fleet: Fleet) -> None:
    fleet.app.dispatcher.holds = lambda queue: False  # type: ignore[method-assign]


def sweeper_of(fleet: Fleet) -> Sweeper:
    settings, store, dispatcher = fleet.app.settings, fleet.app.store, fleet.app.dispatcher
    errands = Errands(settings=settings, store=store, dispatcher=dispatcher)
    return Sweeper(settings, store, dispatcher, errands, Outage())


def test_the_sweep_sends_what_the_broker_lost(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(dispatch_grace=60, sweep_interval=60)
    nothing_waits_in_the_broker(fleet)
    turn = fleet.enqueue("napper", "hi")
    make_overdue(fleet, turn)
    sweeper = sweeper_of(fleet)
    assert sweeper.sweep() == 1
    assert [wakeup.turn_id for wakeup in fleet.sent] == [turn.turn_id]
    assert sweeper.sweep() == 0


def test_the_sweep_wakes_the_next_turn_when_the_worker_died_after_its_commit(
    make_fleet: Callable[..., Fleet],
) -> None:
    fleet = make_fleet(dispatch_grace=0.05, sweep_interval=60)
    first = fleet.enqueue("napper", "one", conversation_id="c")
    second = fleet.enqueue("napper", "two", conversation_id="c")
    fleet.execute(first)
    fleet.sent.clear()  # what it would have sent had it lived
    nothing_waits_in_the_broker(fleet)
    time.sleep(0.1)
    sweeper = sweeper_of(fleet)
    sweeper.sweep()
    assert [wakeup.turn_id for wakeup in fleet.sent] == [second.turn_id]


def test_an_entry_with_a_fault_does_not_stop_the_sweep(
    make_fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet(dispatch_grace=0.05, sweep_interval=60)
    nothing_waits_in_the_broker(fleet)
    beside = next(f"c:{n}" for n in count(1) if partition_of(f"c:{n}") == partition_of("c:0"))
    turns = [fleet.enqueue("napper", "hi", conversation_id=c) for c in ("c:0", beside)]
    faulty = fleet.app.store.redispatch

    def redispatch(conversation_ids: Sequence[str], claimed: Mapping[int, float]) -> list[Wakeup]:
        if "c:0" in conversation_ids:
            raise KeyError("a fault")
        return faulty(conversation_ids, claimed)

    monkeypatch.setattr(fleet.app.store, "redispatch", redispatch)
    time.sleep(0.1)
    assert sweeper_of(fleet).sweep() == 1
    assert [wakeup.turn_id for wakeup in fleet.sent] == [turns[1].turn_id]


def test_a_long_queue_breeds_few_copies(make_fleet: Callable[..., Fleet]) -> None:
    """Of a broker that cannot say what its queue holds, and of one whose queue has lost them."""
    fleet = make_fleet(dispatch_grace=30, sweep_interval=60)
    nothing_waits_in_the_broker(fleet)
    turns = [fleet.enqueue("napper", "hi", conversation_id=f"c:{number}") for number in range(20)]
    sweeper = sweeper_of(fleet)
    for times in range(1, 4):
        make_overdue(fleet, *turns)
        assert sweeper.sweep() == 20
        assert sweeper.sweep() == 0
        # Once for each doubling of the wait.
        for wait in waits(fleet, *turns):
            assert 30 * 2**times - 30 < wait <= 30 * 2**times


def test_a_long_queue_that_moves_breeds_none(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(dispatch_grace=60, sweep_interval=60, queues=1)
    turns = [fleet.enqueue("napper", "hi", conversation_id=f"c:{n}") for n in range(4)]
    sweeper = sweeper_of(fleet)
    make_overdue(fleet, *turns)
    assert sweeper.sweep() == 0  # Nobody has claimed one yet.
    fleet.execute(turns[0])
    for _ in range(3):
        make_overdue(fleet, *turns[1:])
        assert sweeper.sweep() == 0
    # A turn that was sent clearly later is claimed: the wake-ups of those before it are lost.
    late = fleet.enqueue("napper", "hi", conversation_id="c:late")
    fleet.execute(late)
    make_overdue(fleet, *turns[1:])
    assert sweeper.sweep() == 3
    assert {wakeup.turn_id for wakeup in fleet.sent} == {turn.turn_id for turn in turns[1:]}


def test_nothing_is_sent_to_a_broker_that_is_away(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(dispatch_grace=60, sweep_interval=60)
    nothing_waits_in_the_broker(fleet)
    make_overdue(fleet, fleet.enqueue("napper", "hi"))
    sweeper = sweeper_of(fleet)
    fleet.app.dispatcher.reachable = lambda: False  # type: ignore[method-assign]
    assert sweeper.sweep() == 0
    fleet.app.dispatcher.reachable = lambda: True  # type: ignore[method-assign]
    assert sweeper.sweep() == 1


def test_text_that_is_produced_again_is_announced(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(lease_ttl=60, heartbeat=60)
    turn = fleet.enqueue("napper", "hi", stream=True)
    fleet.app.store.claim(
        turn.conversation_id,
        turn.turn_id,
        owner="dies",
        token="x",
        window=AGENTS[0].definition.window,
    )
    expire_lease(fleet, turn)
    fleet.execute(turn)
    events = fleet.app.store.events({turn.turn_id: -1}, 0)[turn.turn_id]
    kinds = [event.type for event in events]
    assert kinds.index(EventType.RESET) < kinds.index(EventType.DELTA)
    assert events[kinds.index(EventType.RESET)].data == {"attempt": 2}
    assert [event.data.get("attempt") for event in events if event.type is EventType.STARTED] == [
        1,
        2,
    ]
