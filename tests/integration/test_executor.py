"""One worker's executor on a real Redis, its deaths and its limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count

import pytest
import redis

from agentapi import EventType, TurnStatus
from agentapi.ids import partition_of
from agentapi.redis.keys import turn_keys
from agentapi.stores import Claim, Wakeup
from orchestrator import CancelOutcome
from tests.integration.fleet import AGENTS, Fleet, run_in_thread
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
    fleet = make_fleet(turn_timeout=0.2)
    turn = fleet.enqueue("napper", '/nap {"seconds": 30}')
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
    turn = fleet.enqueue("napper", '/nap {"seconds": 0.5}')
    thread, results = run_in_thread(fleet, turn)
    with redis.Redis.from_url(fleet.app.settings.redis_url) as client:
        # The new master has the lease and not what was recorded under it.
        assert client.delete(turn_keys(turn.turn_id).journal) == 1
    thread.join()
    assert (results[0]["status"], results[0]["steps"]) == ("completed", 3)
    assert len(fleet.producer.history(turn.conversation_id)) == 4


def test_a_cancelled_turn_stops_at_the_next_beat(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(heartbeat=0.1)
    turn = fleet.enqueue("napper", '/nap {"seconds": 30}', conversation_id="c")
    thread, results = run_in_thread(fleet, turn)
    assert fleet.producer.cancel(turn.turn_id) is CancelOutcome.REQUESTED
    thread.join(5)
    assert results[0]["status"] == "cancelled"
    assert fleet.producer.history("c") == []
    following = fleet.enqueue("napper", "What did I say?", conversation_id="c")
    assert fleet.execute(following)["status"] == "completed"


def test_a_worker_that_lost_its_lease_stops_and_writes_nothing(
    make_fleet: Callable[..., Fleet],
) -> None:
    fleet = make_fleet(heartbeat=60, lease_ttl=0.2)
    turn = fleet.enqueue("napper", '/nap {"seconds": 1}')
    thread, results = run_in_thread(fleet, turn)
    time.sleep(0.4)
    other = make_fleet()
    assert other.execute(turn)["status"] == "completed"
    thread.join(5)
    assert results == [{"status": "lost", "attempt": 1}]
    history = fleet.producer.history(turn.conversation_id)
    assert [message["role"] for message in history] == ["user", "assistant", "tool", "assistant"]
    assert "outcome of this call is unknown" in history[2]["content"]


def nothing_waits_in_the_broker(fleet: Fleet) -> None:
    fleet.app.dispatcher.holds = lambda queue: False  # type: ignore[method-assign]


def sweeper_of(fleet: Fleet) -> Sweeper:
    settings, store, dispatcher = fleet.app.settings, fleet.app.store, fleet.app.dispatcher
    errands = Errands(settings=settings, store=store, dispatcher=dispatcher)
    return Sweeper(settings, store, dispatcher, errands, Outage())


def test_the_sweep_sends_what_the_broker_lost(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(dispatch_grace=0.05, sweep_interval=60)
    nothing_waits_in_the_broker(fleet)
    turn = fleet.enqueue("napper", "hi")
    time.sleep(0.1)
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
    fleet = make_fleet(dispatch_grace=0.1, sweep_interval=60)
    nothing_waits_in_the_broker(fleet)
    for number in range(20):
        fleet.enqueue("napper", "hi", conversation_id=f"c:{number}")
    sweeper = sweeper_of(fleet)
    waited = time.monotonic() + 1.65
    while time.monotonic() < waited:
        sweeper.sweep()
        time.sleep(0.02)
    # Sent again after 0.1, 0.3, 0.7 and 1.5 s: once for each doubling of the wait.
    assert 20 * 3 <= len(fleet.sent) <= 20 * 4


def test_a_long_queue_that_moves_breeds_none(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(dispatch_grace=0.1, sweep_interval=60, queues=1)
    turns = [fleet.enqueue("napper", "hi", conversation_id=f"c:{n}") for n in range(4)]
    sweeper = sweeper_of(fleet)
    time.sleep(0.15)
    assert sweeper.sweep() == 0  # Nobody has claimed one yet.
    fleet.execute(turns[0])
    for _ in range(3):
        time.sleep(0.15)
        assert sweeper.sweep() == 0
    # A turn that was sent clearly later is claimed: the wake-ups of those before it are lost.
    time.sleep(1)
    late = fleet.enqueue("napper", "hi", conversation_id="c:late")
    fleet.execute(late)
    time.sleep(0.15)
    assert sweeper.sweep() == 3
    assert {wakeup.turn_id for wakeup in fleet.sent} == {turn.turn_id for turn in turns[1:]}


def test_nothing_is_sent_to_a_broker_that_is_away(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(dispatch_grace=0.05, sweep_interval=60)
    nothing_waits_in_the_broker(fleet)
    fleet.enqueue("napper", "hi")
    time.sleep(0.1)
    sweeper = sweeper_of(fleet)
    fleet.app.dispatcher.reachable = lambda: False  # type: ignore[method-assign]
    assert sweeper.sweep() == 0
    fleet.app.dispatcher.reachable = lambda: True  # type: ignore[method-assign]
    assert sweeper.sweep() == 1


def test_text_that_is_produced_again_is_announced(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(lease_ttl=0.05, heartbeat=60)
    turn = fleet.enqueue("napper", "hi", stream=True)
    fleet.app.store.claim(
        turn.conversation_id,
        turn.turn_id,
        owner="dies",
        token="x",
        window=AGENTS[0].definition.window,
    )
    time.sleep(0.1)
    fleet.execute(turn)
    events = fleet.app.store.events({turn.turn_id: -1}, 0)[turn.turn_id]
    kinds = [event.type for event in events]
    assert kinds.index(EventType.RESET) < kinds.index(EventType.DELTA)
    assert events[kinds.index(EventType.RESET)].data == {"attempt": 2}
    assert [event.data.get("attempt") for event in events if event.type is EventType.STARTED] == [
        1,
        2,
    ]
