"""The sweep outlives what nobody expected, yields to another worker, and starves nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import pytest

from agentapi import load_settings
from agentapi.errors import StoreUnavailable
from agentapi.ids import create_turn_id, partition_of, partition_of_turn
from agentapi.stores import Errand, ErrandKind, SweepStore, Wakeup
from agentapi.stores.answers import Election
from agentapi.stores.groups import SWEEP_GROUPS, group_of, partitions_of
from agentapi.supervision import Supervisor
from tests.faults import until
from tests.logged import logged
from workers.dispatch import Dispatcher
from workers.errands import Errands
from workers.outage import Outage
from workers.upkeep.sweeper import AT_ONCE, MOST_OVERDUE, Sweeper

WAIT = 30
ALL = range(SWEEP_GROUPS)


class Panic(BaseException):
    """Like the panics of extensions written in Rust: not an Exception."""


class Fleet:
    """A store, a broker and errands, as far as a sweep goes."""

    def __init__(self, *, sharded: bool = False) -> None:
        self.sharded = sharded
        self.election_away = False
        self.elections: list[Iterable[int]] = [ALL] * 10_000
        self.asked: list[bool] = []
        self.since_sweep: float | None = 1.0
        self.errors: list[BaseException] = []
        self.late: list[str | Errand] = []
        self.limits: list[int] = []
        self.visited: list[set[int]] = []
        self.sent: list[str] = []
        self.resigned = 0
        self.done: list[str] = []
        self.broken: set[str] = set()
        self.away: set[str] = set()
        self.now = 0.0
        self.returns = 0
        self.hastened = 0
        self.looked = threading.Semaphore(0)

    def elect(self, candidate: str, *, ttl: float, swept: bool) -> Election:
        self.asked.append(swept)
        if self.election_away:
            raise StoreUnavailable("away")
        groups = frozenset(self.elections.pop(0))
        return Election(groups=groups, since_sweep=self.since_sweep)

    def resign(self, candidate: str) -> None:
        self.resigned += 1

    def overdue(self, limit: int, partitions: Sequence[int]) -> list[str | Errand]:
        self.limits.append(limit)
        self.visited.append(set(partitions))
        self.looked.release()
        if self.errors:
            raise self.errors.pop(0)
        return [late for late in self.late if _partition(late) in partitions]

    def hasten(self, partitions: Sequence[int]) -> int:
        self.hastened += 1
        return 0

    def claimed(self) -> dict[int, float]:
        return {}

    def redispatch(self, conversations: Iterable[str], _: Mapping[int, float]) -> list[Wakeup]:
        found = list(conversations)
        self.done += found
        self.now += 0.4
        return [Wakeup(conversation_id=c, turn_id=f"t:{c}", agent="a") for c in found]

    def carry_out(self, errand: Errand) -> None:
        if errand.turn_id in self.away:
            raise StoreUnavailable("away")
        self.done.append(errand.turn_id)
        self.now += 0.4
        if errand.turn_id in self.broken:
            raise RuntimeError("a fault")

    def reachable(self) -> bool:
        return True

    def holds(self, queue: str) -> bool:
        return False

    def send_all(self, wakeups: Sequence[Wakeup]) -> None:
        if self.broken.intersection(wakeup.turn_id for wakeup in wakeups):
            raise RuntimeError("a fault")
        self.sent += [wakeup.conversation_id for wakeup in wakeups]


def _partition(late: str | Errand) -> int:
    return partition_of(late) if isinstance(late, str) else late.partition


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor(fatal=None)


@pytest.fixture
def sweeper(fleet: Fleet, supervisor: Supervisor) -> Sweeper:
    return make(fleet, supervisor, sweep_interval=1)


def make(fleet: Fleet, supervisor: Supervisor, **settings: Any) -> Sweeper:
    return Sweeper(
        load_settings(**settings),
        cast("SweepStore", fleet),
        cast("Dispatcher", fleet),
        cast("Errands", fleet),
        Outage(),
        supervisor=supervisor,
        clock=lambda: fleet.now,
    )


def errand(number: int) -> Errand:
    turn_id = create_turn_id(f"c:{number}")
    return Errand(kind=ErrandKind.DELIVER, turn_id=turn_id, partition=partition_of_turn(turn_id))


@pytest.mark.parametrize("error", [RuntimeError("x"), Panic(), SystemExit()])
def test_it_sweeps_on_after_any_error_and_lets_another_worker_sweep_meanwhile(
    fleet: Fleet, supervisor: Supervisor, error: BaseException
) -> None:
    fleet.errors = [error]
    sweeper = make(fleet, supervisor, sweep_interval=0.001)
    sweeper.start("me")
    for _ in range(5):
        assert fleet.looked.acquire(timeout=WAIT)
    sweeper.stop()
    assert fleet.resigned == 2
    [status] = supervisor.status()
    assert (status.failures, status.last_error) == (1, type(error).__name__)


def test_a_shard_that_is_away_does_not_keep_the_others_waiting(
    supervisor: Supervisor,
) -> None:
    fleet = Fleet(sharded=True)
    sweeper = make(fleet, supervisor, sweep_interval=1)
    sweeper.sweep()
    fleet.election_away = True
    lost, found = errand(1), errand(2)
    fleet.late = [lost, found, "c"]
    fleet.away = {lost.turn_id}
    assert sweeper.sweep() == 1
    assert sorted(fleet.done) == sorted([found.turn_id, "c"])
    # One server that is away ends the sweep.
    fleet.sharded = False
    fleet.now += 100
    with pytest.raises(StoreUnavailable):
        sweeper.sweep()


def test_without_the_election_each_visits_all_groups_in_turn_beside_its_own(
    supervisor: Supervisor,
) -> None:
    fleet = Fleet(sharded=True)
    fleet.elections = [{3, 5}] * 10
    sweeper = make(fleet, supervisor, sweep_interval=1)
    sweeper.sweep()
    assert fleet.visited == [set(partitions_of({3, 5}))]
    assert not sweeper.leads
    fleet.election_away = True
    fleet.visited.clear()
    fleet.asked.clear()
    for fleet.now in ALL:
        sweeper.sweep()
    # A try waits for its answer, so there are few.
    assert len(fleet.asked) == 4
    assert all(visited.issuperset(partitions_of({3, 5})) for visited in fleet.visited)
    assert max(map(len, fleet.visited)) == 3 * len(partitions_of({0}))
    assert set.union(*fleet.visited) == set(partitions_of(ALL))
    # What it has of its own does not grow with its visits.
    assert sweeper.groups == {3, 5}


def test_groups_that_another_worker_took_are_left_to_it(fleet: Fleet, sweeper: Sweeper) -> None:
    fleet.late = [f"c:{n}" for n in range(1000)]
    kept = {*ALL} - {group_of(partition_of("c:7"))}
    fleet.elections = [ALL, kept, kept, *[kept] * 1000]
    sweeper.sweep()
    before = {group_of(partition_of(c)) for c in fleet.done[:3]}
    assert {group_of(partition_of(c)) for c in fleet.done} - before <= kept
    assert fleet.asked[1]


def test_a_wake_up_that_cannot_be_sent_keeps_no_other(fleet: Fleet, sweeper: Sweeper) -> None:
    beside = [c for c in (f"c:{n}" for n in range(4000)) if partition_of(c) == 7]
    fleet.late = [*beside[:5]]
    fleet.broken = {f"t:{beside[2]}"}
    sweeper.sweep()
    assert fleet.sent == [*beside[:2], *beside[3:5]]


def test_a_store_that_is_away_is_no_failure(fleet: Fleet, supervisor: Supervisor) -> None:
    fleet.errors = [StoreUnavailable("away") for _ in range(20)]
    sweeper = make(fleet, supervisor, sweep_interval=0.001)
    sweeper.start("me")
    until(lambda: not fleet.errors, WAIT)
    sweeper.stop()
    assert supervisor.status()[0].failures == 0


def test_a_sweep_that_is_complete_is_told_at_the_next_election(
    fleet: Fleet, sweeper: Sweeper
) -> None:
    sweeper.sweep()
    fleet.errors = [RuntimeError("x")]
    with pytest.raises(RuntimeError):
        sweeper.sweep()
    sweeper.sweep()
    assert fleet.asked == [False, True, False]


def test_a_long_sweep_ends_when_another_worker_is_elected(fleet: Fleet, sweeper: Sweeper) -> None:
    fleet.late = [*(f"c:{n}" for n in range(1000)), *map(errand, range(1000))]
    fleet.elections = [ALL, ALL, ALL, ()]
    sweeper.sweep()
    # It asks again each second, and each part takes 0.4: it did so nine times.
    assert fleet.now == pytest.approx(3.6)
    assert fleet.asked == [False, True, True, True]


def test_errands_and_conversations_take_turns(fleet: Fleet, sweeper: Sweeper) -> None:
    beside = [c for c in (f"c:{n}" for n in range(40_000)) if partition_of(c) == 7]
    fleet.late = [*map(errand, range(3)), *beside[: AT_ONCE + 1]]
    sweeper.sweep()
    kinds = ["errand" if "-" in done else "turn" for done in fleet.done]
    assert kinds == [*["turn"] * AT_ONCE, "errand", "turn", "errand", "errand"]


def test_errands_that_fail_take_nobodys_place(fleet: Fleet, sweeper: Sweeper) -> None:
    errands = [errand(n) for n in range(5)]
    fleet.broken = {e.turn_id for e in errands[:4]}
    fleet.late = [*errands, "c"]
    sweeper.sweep()
    assert len(fleet.done) == 6
    fleet.done.clear()
    fleet.late.remove(errands[4])
    sweeper.sweep()
    # They rest, and the store is asked for as many more.
    assert fleet.done == ["c"]
    assert fleet.limits == [MOST_OVERDUE, MOST_OVERDUE + 4]
    fleet.now += 10
    fleet.broken.clear()
    sweeper.sweep()
    assert len(fleet.done) == 6
    fleet.late.clear()
    sweeper.sweep()
    sweeper.sweep()
    assert fleet.limits[-1] == MOST_OVERDUE


def test_after_an_outage_of_the_broker_all_that_was_sent_is_looked_at_at_once(
    fleet: Fleet, sweeper: Sweeper
) -> None:
    for returns in (0, 0, 1, 1, 3):
        fleet.returns = returns
        sweeper.sweep()
    assert fleet.hastened == 2


def test_that_nobody_sweeps_is_told_once(
    fleet: Fleet, sweeper: Sweeper, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.elections = [()] * 10
    fleet.now = 100
    for since in (1.0, 4.9, 5.1, 6.0, 0.5):
        fleet.since_sweep = since
        sweeper.sweep()
        assert sweeper.absent is (since in (5.1, 6.0))
    words = [record.message.split()[0] for record in logged(caplog, "agentapi.sweep")]
    assert words == ["sweep.absent", "sweep.back"]


@pytest.mark.parametrize("last", [None, 3600.0])
def test_a_worker_that_has_just_started_waits_before_it_tells_that_nobody_sweeps(
    fleet: Fleet, sweeper: Sweeper, caplog: pytest.LogCaptureFixture, last: float | None
) -> None:
    fleet.elections = [()] * 10
    for fleet.now in (0.0, 1.0, 4.9, 5.1):
        # The last sweep, if there was one, was before the start.
        fleet.since_sweep = None if last is None else last + fleet.now
        sweeper.sweep()
        assert sweeper.absent is (fleet.now > 5)
    [told] = [record.message for record in logged(caplog, "agentapi.sweep")]
    assert told == "sweep.absent seconds=5.1"
