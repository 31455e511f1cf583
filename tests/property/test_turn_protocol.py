"""The turn protocol as a state machine: any order of calls, repeats and zombies included.

A model of a few lines says what should be; both stores must agree with it after every step.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from agentapi.errors import ConversationBusy, LeaseLost, TurnNotRetryable
from agentapi.ids import create_turn_id
from agentapi.stores import (
    Accepted,
    CancelOutcome,
    Claim,
    Ending,
    Lease,
    NewEvent,
    Refusal,
    Refused,
)
from agentapi.turns import (
    TRANSITIONS,
    EventType,
    NewTurn,
    OnAbort,
    OnBusy,
    TurnStatus,
)
from orchestrator.stack.cluster import Cluster
from tests.conformance.stores import Bench, completed, in_memory, model_step, on_redis, tool_step
from tests.property.turn_model import Expected, valid

CONVERSATIONS = ("user:1", "user:2", "tenant:acme:user:1")


class TurnProtocol(RuleBasedStateMachine):
    """Producers, workers, zombies and lost answers, in any order."""

    make_bench: Callable[[], Bench]
    turns = Bundle("turns")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.bench = type(self).make_bench()
        self.store = self.bench.store
        self.expected = {conversation: Expected() for conversation in CONVERSATIONS}
        self.answers: dict[Lease, Any] = {}
        self.seen: dict[str, TurnStatus] = {}

    def teardown(self) -> None:
        self.store.close()

    def owner_of(self, lease: Lease) -> Expected:
        return self.expected[lease.conversation_id]

    def holds(self, lease: Lease) -> bool:
        return self.owner_of(lease).lease == lease

    @rule(
        target=turns,
        conversation=st.sampled_from(CONVERSATIONS),
        on_busy=st.sampled_from(OnBusy),
        on_abort=st.sampled_from(OnAbort),
        late=st.booleans(),
    )
    def enqueue(self, conversation: str, on_busy: OnBusy, on_abort: OnAbort, late: bool) -> Any:
        expected = self.expected[conversation]
        turn_id = create_turn_id(conversation)
        answer = self._enqueue(conversation, turn_id, on_busy, on_abort, late)
        busy = bool(expected.inbox)
        if busy and on_busy is OnBusy.REJECT:
            assert isinstance(answer, ConversationBusy)
            return multiple()
        assert isinstance(answer, Accepted)
        newest = expected.inbox[-1] if busy else ""
        if on_busy is OnBusy.MERGE and not late and self._joins(expected, newest, on_abort):
            assert (answer.turn_id, answer.created, answer.wakeup) == (newest, False, None)
            expected.merged[turn_id] = newest
            return multiple()
        assert answer.created
        woken = answer.wakeup.turn_id if answer.wakeup else None
        expected.accepted.append(turn_id)
        expected.inbox.append(turn_id)
        expected.status[turn_id] = TurnStatus.QUEUED
        if late:
            expected.late.add(turn_id)
        if on_abort is OnAbort.KEEP:
            expected.keeps.add(turn_id)
        if not busy:
            assert woken == turn_id
        elif on_busy is OnBusy.REPLACE:
            expected.keeps.discard(expected.inbox[0])
            assert woken == self._cancelled(expected, expected.inbox[0], by_worker=False)
        elif on_busy is OnBusy.INTERRUPT:
            expected.keeps.add(expected.inbox[0])
            assert woken == self._cancelled(expected, expected.inbox[0], by_worker=True)
        else:
            assert woken is None
        if busy:
            expected.woken[turn_id] = woken
        return conversation, turn_id

    def _joins(self, expected: Expected, newest: str, on_abort: OnAbort) -> bool:
        return (
            bool(newest)
            and expected.status[newest] is TurnStatus.QUEUED
            and newest not in expected.begun | expected.cancel_asked | expected.late
            and (newest in expected.keeps) == (on_abort is OnAbort.KEEP)
        )

    def _cancelled(self, expected: Expected, turn_id: str, *, by_worker: bool) -> str | None:
        """What cancelling does; the turn that is woken by it."""
        mine = expected.lease is not None and expected.lease.turn_id == turn_id
        if (mine and expected.lease_live) or by_worker:
            expected.cancel_asked.add(turn_id)
            return None if mine and expected.lease_live else turn_id
        head = expected.inbox[0] == turn_id
        self._ended(expected, turn_id, TurnStatus.CANCELLED)
        return expected.inbox[0] if head and expected.inbox else None

    @rule(turn=turns, on_busy=st.sampled_from(OnBusy))
    def enqueue_again(self, turn: tuple[str, str], on_busy: OnBusy) -> None:
        conversation, turn_id = turn
        expected = self.expected[conversation]
        answer = self._enqueue(conversation, turn_id, on_busy, OnAbort.DROP)
        assert isinstance(answer, Accepted)
        assert not answer.created
        woken = expected.woken.get(turn_id)
        if expected.status[turn_id] is TurnStatus.QUEUED and expected.inbox[0] == turn_id:
            woken = turn_id
        elif woken is not None and expected.status[woken].ended:
            woken = None
        assert (answer.wakeup.turn_id if answer.wakeup else None) == woken

    @rule(conversation=st.sampled_from(CONVERSATIONS))
    def merge_again(self, conversation: str) -> None:
        for turn_id, joined in self.expected[conversation].merged.items():
            answer = self._enqueue(conversation, turn_id, OnBusy.MERGE, OnAbort.DROP)
            assert isinstance(answer, Accepted)
            assert (answer.turn_id, answer.created) == (joined, False)

    def _enqueue(
        self,
        conversation: str,
        turn_id: str,
        on_busy: OnBusy,
        on_abort: OnAbort,
        late: bool = False,
    ) -> Accepted | Refused:
        new = NewTurn(
            turn_id=turn_id,
            conversation_id=conversation,
            agent="a",
            input=turn_id,
            on_busy=on_busy,
            on_abort=on_abort,
            deadline_at=1.0 if late else None,
        )
        return self.store.enqueue([new])[0]

    @rule(target=leases, turn=turns, repeat=st.booleans())
    def claim(self, turn: tuple[str, str], repeat: bool) -> Any:
        """A wake-up, stale or not; a repeat is the same claim whose answer was lost."""
        conversation, turn_id = turn
        expected = self.expected[conversation]
        token = f"{expected.epoch}:{turn_id}:{expected.lease_live}"
        answer = self.bench.try_claim(turn_id, conversation, token=token)
        head = expected.inbox[0] if expected.inbox else None
        parked = (
            expected.status[turn_id] is TurnStatus.PARKED
            and turn_id not in expected.cancel_asked | expected.late
        )
        if head != turn_id or expected.lease_live or parked:
            assert isinstance(answer, Refusal)
            return multiple()
        assert isinstance(answer, Claim)
        assert answer.lease.epoch > expected.epoch
        expected.epoch = answer.lease.epoch
        expected.lease, expected.lease_live = answer.lease, True
        expected.status[turn_id] = TurnStatus.RUNNING
        expected.begun.add(turn_id)
        assert answer.turn.cancel_requested == (turn_id in expected.cancel_asked)
        assert list(answer.steps) == expected.steps.get(turn_id, [])
        assert list(answer.history) == expected.history
        if repeat:
            again = self.bench.try_claim(turn_id, conversation, token=token)
            assert isinstance(again, Claim)
            assert again.lease == answer.lease
        return answer.lease

    @rule(lease=leases, repeat=st.booleans())
    def record(self, lease: Lease, repeat: bool) -> None:
        expected = self.owner_of(lease)
        steps = expected.steps.setdefault(lease.turn_id, [])
        index = len(steps)
        step = model_step(f"c{index}") if index % 2 == 0 else tool_step(f"c{index - 1}")
        if not self.holds(lease):
            with pytest.raises(LeaseLost):
                self.store.record(lease, index, step)
            return
        for _ in range(2 if repeat else 1):
            asked = self.store.record(lease, index, step)
            assert asked.cancel == (lease.turn_id in expected.cancel_asked)
        steps.append(step)
        expected.recorded[lease.turn_id] += 1

    @rule(lease=leases, succeeds=st.booleans())
    def commit(self, lease: Lease, succeeds: bool) -> None:
        expected = self.owner_of(lease)
        ending = (
            completed(lease.turn_id, lease.turn_id)
            if succeeds
            else Ending(status=TurnStatus.FAILED)
        )
        if lease in self.answers:
            assert self.store.commit(lease, ending) == self.answers[lease]
            return
        if not self.holds(lease):
            with pytest.raises(LeaseLost):
                self.store.commit(lease, ending)
            return
        wakeup = self.answers[lease] = self.store.commit(lease, ending)
        keeps = succeeds or lease.turn_id in expected.keeps
        if keeps and lease.generation == expected.generation:
            expected.history += ending.messages
        self._ended(expected, lease.turn_id, ending.status)
        assert (wakeup.turn_id if wakeup else None) == next(iter(expected.inbox), None)

    def _ended(self, expected: Expected, turn_id: str, status: TurnStatus) -> None:
        expected.inbox.remove(turn_id)
        expected.status[turn_id] = status
        if status is not TurnStatus.FAILED:
            expected.steps.pop(turn_id, None)
        if status is not TurnStatus.CANCELLED:
            expected.finished.append(turn_id)
        if expected.lease is not None and expected.lease.turn_id == turn_id:
            expected.lease, expected.lease_live = None, False

    @rule(lease=leases)
    def release(self, lease: Lease) -> None:
        expected = self.owner_of(lease)
        if not self.holds(lease):
            return
        self.store.release(lease)
        self.store.release(lease)
        expected.lease, expected.lease_live = None, False
        expected.status[lease.turn_id] = TurnStatus.QUEUED

    @rule(lease=leases, repeat=st.booleans())
    def park(self, lease: Lease, repeat: bool) -> None:
        expected = self.owner_of(lease)
        if not self.holds(lease):
            return
        for _ in range(2 if repeat else 1):
            parked = self.store.park(lease, 3600, failures=1, steps=0, reason="provider")
            assert parked == (lease.turn_id not in expected.cancel_asked)
        if parked:
            expected.lease, expected.lease_live = None, False
            expected.status[lease.turn_id] = TurnStatus.PARKED

    @rule(turn=turns, repeat=st.booleans())
    def retry(self, turn: tuple[str, str], repeat: bool) -> None:
        conversation, turn_id = turn
        expected = self.expected[conversation]
        if expected.status[turn_id] is not TurnStatus.FAILED:
            with pytest.raises(TurnNotRetryable):
                self.store.retry(turn_id, "never")
            return
        expected.retries[turn_id] += 1
        for _ in range(2 if repeat else 1):
            wakeup = self.store.retry(turn_id, f"op{expected.retries[turn_id]}")
            assert (wakeup is not None) == (not expected.inbox or expected.inbox[0] == turn_id)
            if turn_id not in expected.inbox:
                expected.inbox.append(turn_id)
        expected.accepted.remove(turn_id)
        expected.accepted.append(turn_id)
        expected.finished.remove(turn_id)
        expected.expired.discard(turn_id)
        expected.cancel_asked.discard(turn_id)
        expected.late.discard(turn_id)
        expected.woken.pop(turn_id, None)
        expected.status[turn_id] = TurnStatus.QUEUED
        # A commit whose answer was lost and that is repeated only now finds the turn taken back.
        self.answers = {k: v for k, v in self.answers.items() if k.turn_id != turn_id}

    @rule(lease=leases, texts=st.lists(st.sampled_from("ab"), max_size=2))
    def emit(self, lease: Lease, texts: list[str]) -> None:
        expected = self.owner_of(lease)
        batch = expected.batches[lease] + 1
        events = [NewEvent(type=EventType.DELTA, data={"text": text}) for text in texts]
        for _ in range(2):
            self.store.emit([(lease, batch, events)])
        if self.holds(lease):
            expected.batches[lease] = batch
            expected.shown[lease.turn_id] += len(texts)

    @rule(conversation=st.sampled_from(CONVERSATIONS))
    def orphan(self, conversation: str) -> None:
        """The watchdog of a worker that was killed ends its leases."""
        expected = self.expected[conversation]
        if expected.lease is not None:
            assert self.store.orphan(expected.lease.token) == [conversation]
            expected.lease_live = False

    @rule(lease=leases)
    def perish(self, lease: Lease) -> None:
        """A process that ran one turn only is dead: the turn is there for the next at once."""
        expected = self.owner_of(lease)
        held = self.holds(lease)
        perished = self.store.perish(lease.conversation_id, lease.turn_id, lease.token)
        if held:
            assert perished is not None
            assert self.store.perish(lease.conversation_id, lease.turn_id, lease.token) == perished
            expected.lease, expected.lease_live = None, False
            expected.status[lease.turn_id] = TurnStatus.QUEUED

    @rule(conversation=st.sampled_from(CONVERSATIONS), late=st.booleans())
    def summarise(self, conversation: str, late: bool) -> None:
        expected = self.expected[conversation]
        start, stop = expected.covered, len(expected.history)
        kept = self.store.summarise(
            conversation,
            f"of {stop}",
            generation=expected.generation - (1 if late else 0),
            start=start,
            stop=stop,
        )
        assert kept == (bool(expected.accepted) and not late)
        if kept:
            expected.covered = stop

    @rule(lease=leases)
    def renew(self, lease: Lease) -> None:
        expected = self.owner_of(lease)
        [renewal] = self.store.renew([lease])
        assert renewal.held == self.holds(lease)
        if renewal.held:
            expected.lease_live = True
            assert renewal.cancel == (lease.turn_id in expected.cancel_asked)

    @rule(turn=turns)
    def cancel(self, turn: tuple[str, str]) -> None:
        conversation, turn_id = turn
        expected = self.expected[conversation]
        outcome = self.store.cancel(turn_id).outcome
        if expected.status[turn_id].ended:
            assert outcome in (CancelOutcome.ENDED, CancelOutcome.CANCELLED)
            return
        keeps = turn_id in expected.keeps & expected.begun
        self._cancelled(expected, turn_id, by_worker=keeps)
        asked = turn_id in expected.cancel_asked and turn_id in expected.inbox
        assert outcome is (CancelOutcome.REQUESTED if asked else CancelOutcome.CANCELLED)

    @rule(turn=turns)
    def expire(self, turn: tuple[str, str]) -> None:
        """The deadline of a turn passes: those that have not begun end, wherever they are."""
        conversation, turn_id = turn
        expected = self.expected[conversation]
        before = expected.status[turn_id]
        wakeup = self.store.expire(turn_id)
        untouched = turn_id not in expected.begun | expected.cancel_asked
        if before is not TurnStatus.QUEUED or turn_id not in expected.late or not untouched:
            assert self.store.turn(turn_id).status is before
            return
        head = expected.inbox[0] == turn_id
        expected.expired.add(turn_id)
        self._ended(expected, turn_id, TurnStatus.FAILED)
        following = expected.inbox[0] if head and expected.inbox else None
        assert (wakeup.turn_id if wakeup else None) == following

    @rule(conversation=st.sampled_from(CONVERSATIONS))
    def lease_expires(self, conversation: str) -> None:
        expected = self.expected[conversation]
        if expected.lease is not None:
            self.bench.expire_lease(conversation)
            expected.lease_live = False

    @rule(conversation=st.sampled_from(CONVERSATIONS))
    def reset(self, conversation: str) -> None:
        expected = self.expected[conversation]
        assert self.store.reset(conversation) == len(expected.history)
        expected.history, expected.covered = [], 0
        if expected.accepted:
            expected.generation += 1

    @rule(conversation=st.sampled_from(CONVERSATIONS))
    def sweep(self, conversation: str) -> None:
        expected = self.expected[conversation]
        if expected.inbox:
            self.bench.overdue_now(conversation)
            [wakeup] = self.store.redispatch([conversation], {})
            assert wakeup.turn_id == expected.inbox[0]

    @invariant()
    def statuses_and_order(self) -> None:
        for expected in self.expected.values():
            for turn_id, status in expected.status.items():
                seen = self.store.turn(turn_id).status
                assert seen is status
                before = self.seen.get(turn_id, seen)
                assert seen in {before, *TRANSITIONS[before]}
                self.seen[turn_id] = seen
            finished = [turn for turn in expected.finished if turn not in expected.expired]
            assert finished == [turn for turn in expected.accepted if turn in set(finished)]

    @invariant()
    def a_conversation_with_turns_is_always_due(self) -> None:
        for conversation, expected in self.expected.items():
            assert self.bench.has_due(conversation) == bool(expected.inbox)

    @invariant()
    def histories_are_whole_turns_in_order(self) -> None:
        for conversation, expected in self.expected.items():
            history = self.store.history(conversation)
            assert history == expected.history
            assert valid(history)

    @invariant()
    def events_are_numbered_without_gaps(self) -> None:
        for expected in self.expected.values():
            for turn_id, status in expected.status.items():
                events = self.store.events({turn_id: -1}, 0).get(turn_id, [])
                assert [event.number for event in events] == list(range(len(events)))
                ends = sum(event.type.ends for event in events)
                assert ends == int(status.ended) + expected.retries[turn_id]
                steps = sum(event.type is EventType.STEP for event in events)
                assert steps == expected.recorded[turn_id]
                shown = sum(event.type is EventType.DELTA for event in events)
                assert shown == expected.shown[turn_id]


LEASE = 3600
"""Seconds: an example must not outlast it on a busy machine."""

EXAMPLES = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def test_in_memory() -> None:
    class InMemory(TurnProtocol):
        make_bench = staticmethod(lambda: in_memory(lease_ttl=LEASE))

    run_state_machine_as_test(InMemory, settings=EXAMPLES)


def test_on_redis(redis_url: str) -> None:
    def fresh() -> Bench:
        client = redis.Redis.from_url(redis_url)
        client.flushall()
        client.close()
        return on_redis(redis_url, lease_ttl=LEASE)

    class OnRedis(TurnProtocol):
        make_bench = staticmethod(fresh)

    run_state_machine_as_test(OnRedis, settings=EXAMPLES)


def test_on_a_cluster(cluster: Cluster) -> None:
    def fresh() -> Bench:
        cluster.empty()
        return on_redis(cluster.url, lease_ttl=LEASE)

    class OnCluster(TurnProtocol):
        make_bench = staticmethod(fresh)

    # What differs is where calls go, which every example shows.
    few = settings(EXAMPLES, max_examples=5)
    run_state_machine_as_test(OnCluster, settings=few)
