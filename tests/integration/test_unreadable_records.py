"""Records of a newer release, or of none: each harms its own turn only, and nothing is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
import redis

from agentapi import EventType, TurnStatus
from agentapi.errors import ConfigurationError, UnreadableRecord
from agentapi.ids import partition_of_turn
from agentapi.redis.keys import (
    PROTOCOL_KEY,
    claimed_key,
    conversation_keys,
    due_key,
    turn_keys,
)
from agentapi.settings import Settings
from agentapi.stores import Claim, Ending, Errand, ErrandKind, Refusal, Unreadable
from agentapi.turns import HeldCalls, Question
from orchestrator.stack.processes import free_port
from tests.conformance.stores import Bench, C, model_step, on_redis
from tests.integration.fleet import Fleet
from tests.logged import logged
from workers.refusals import refuse_other_fleet
from workers.turns import unreadable

NEWER = b'{"v":2,"role":"user","parts":["secret"]}'


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    bench = on_redis(redis_url)
    yield bench
    bench.store.close()


def unreadable_claim(bench: Bench, turn_id: str) -> Unreadable:
    answer = bench.try_claim(turn_id)
    assert isinstance(answer, Unreadable)
    return answer


def test_a_message_of_a_newer_release_keeps_the_lease(bench: Bench, client: redis.Redis) -> None:
    turn_id = bench.enqueue()
    client.rpush(conversation_keys(C).messages, NEWER)
    fault = unreadable_claim(bench, turn_id)
    assert (fault.error.newer, fault.attempt, fault.deferrals) == (True, 1, 0)
    assert fault.turn is not None
    assert isinstance(bench.try_claim(turn_id), Refusal)
    bench.store.release(fault.lease, 60)
    bench.store.release(fault.lease, 60)
    assert bench.store.overdue() == []
    assert bench.has_due(C)
    fault = unreadable_claim(bench, turn_id)
    assert (fault.attempt, fault.deferrals) == (2, 1)
    # As a newer worker would read it.
    client.delete(conversation_keys(C).messages)
    bench.store.release(fault.lease)
    claim = bench.claim(turn_id)
    assert claim.turn.deferrals == 1
    bench.complete(claim.lease)


@pytest.mark.parametrize("data", [b"{", b'{"v":1}', b'{"v":2}', b"\xff"])
def test_a_step(bench: Bench, client: redis.Redis, data: bytes) -> None:
    turn_id = bench.enqueue()
    bench.store.record(bench.claim(turn_id).lease, 0, model_step())
    client.rpush(turn_keys(turn_id).journal, data)
    bench.expire_lease(C)
    fault = unreadable_claim(bench, turn_id)
    assert fault.error.newer == (b"2" in data)
    bench.store.commit(fault.lease, Ending(status=TurnStatus.FAILED))
    assert bench.store.turn(turn_id).status is TurnStatus.FAILED


def test_a_turn_of_a_newer_release(bench: Bench, client: redis.Redis) -> None:
    turn_id, behind = bench.enqueue(), bench.enqueue()
    client.hset(turn_keys(turn_id).turn, "v", 2)
    with pytest.raises(UnreadableRecord, match=f"turn {turn_id} has format version 2"):
        bench.store.turn(turn_id)
    fault = unreadable_claim(bench, turn_id)
    assert fault.turn is None
    wakeup = bench.store.commit(fault.lease, Ending(status=TurnStatus.FAILED))
    assert wakeup is not None
    assert wakeup.turn_id == behind
    refusal = bench.try_claim(turn_id)
    assert isinstance(refusal, Refusal)
    assert refusal.turn is None
    assert isinstance(bench.try_claim(behind), Claim)


def test_a_waiting_call(bench: Bench, client: redis.Redis) -> None:
    turn_id = bench.enqueue()
    asked = HeldCalls(questions=[Question(call_id="c", tool="t", arguments={})])
    bench.store.calls.suspend(bench.claim(turn_id).lease, asked)
    client.hset(turn_keys(turn_id).calls, "a:c", b'{"verdict":"perhaps"}')
    client.hset(turn_keys(turn_id).turn, "wake", 0)
    assert not unreadable_claim(bench, turn_id).error.newer


def test_entries_of_the_due_index_keep_the_sweep_from_no_other(
    bench: Bench, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    turn_id = bench.enqueue()
    bench.overdue_now(C)
    due = due_key(partition_of_turn(turn_id))
    strangers = (f"\1of_a_newer_release:{turn_id}".encode(), b"\1cancel:nothing", b"\1", b"\xff")
    client.zadd(due, dict.fromkeys([*strangers, f"\1cancel:{turn_id}".encode()], 1))
    errand = Errand(kind=ErrandKind.CANCEL, turn_id=turn_id, partition=partition_of_turn(turn_id))
    with caplog.at_level(logging.ERROR, "agentapi.store"):
        for _ in range(3):
            assert sorted(map(str, bench.store.overdue())) == sorted(map(str, [C, errand]))
    assert len(logged(caplog, "agentapi.store")) == len(strangers)
    assert client.zcard(due) == len(strangers) + 2


def test_an_event_of_a_newer_release(bench: Bench, client: redis.Redis) -> None:
    turn_id, other = bench.enqueue(), bench.enqueue("other")
    lease = bench.claim(turn_id).lease
    # As the script of a newer release appends it.
    client.hincrby(turn_keys(turn_id).turn, "events", 1)
    client.xadd(turn_keys(turn_id).events, {"type": "thought", "data": "{}"}, id="2-0")
    bench.complete(lease)
    bench.claim(other, "other")
    found = bench.store.events({turn_id: -1, other: -1}, 0)
    assert [event.type for event in found[turn_id]] == [
        EventType.STARTED,
        EventType.UNKNOWN,
        EventType.COMPLETED,
    ]
    assert [event.number for event in found[turn_id]] == [0, 1, 2]
    assert found[turn_id][1].data == {"type": "thought"}
    assert len(found[other]) == 1


def test_the_protocol_of_the_fleet(bench: Bench, client: redis.Redis) -> None:
    bench.store.check_protocol()
    bench.store.check_protocol()
    assert client.get(PROTOCOL_KEY) == b"1"
    client.set(PROTOCOL_KEY, 2)
    with pytest.raises(ConfigurationError, match=r"version '2'.*knows version 1: upgrade"):
        bench.store.check_protocol()
    with pytest.raises(SystemExit, match="worker cannot start: this Redis is used with version"):
        refuse_other_fleet(Settings(), bench.store)


def test_a_worker_starts_without_redis() -> None:
    bench = on_redis(f"redis://127.0.0.1:{free_port()}/0", redis_timeout=1)
    refuse_other_fleet(Settings(), bench.store)
    bench.store.close()


def test_a_worker_leaves_a_turn_to_newer_ones_and_ends_it_when_none_comes(
    make_fleet: Callable[..., Fleet], client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unreadable, "MOST_DEFERRALS", 2)
    fleet = make_fleet()
    turn = fleet.enqueue("napper", "hi", conversation_id="c")
    behind = fleet.enqueue("napper", "and now?", conversation_id="c")
    client.rpush(conversation_keys("c").messages, NEWER)
    for seconds in (1, 2):
        assert fleet.execute(turn)["seconds"] == seconds
        assert fleet.turn(turn).status is TurnStatus.QUEUED
    assert fleet.execute(turn) == {"status": "failed", "attempt": 3, "error": "unreadable"}
    error = fleet.turn(turn).error
    assert error is not None
    assert "upgrade every worker" in error.message
    assert [wakeup.turn_id for wakeup in fleet.sent] == [behind.turn_id]


def test_a_worker_ends_a_turn_at_once_that_no_release_can_read(
    make_fleet: Callable[..., Fleet], client: redis.Redis
) -> None:
    fleet = make_fleet()
    turn = fleet.enqueue("napper", "hi", conversation_id="c")
    client.rpush(conversation_keys("c").messages, b"secret")
    assert fleet.execute(turn)["error"] == "unreadable"
    error = fleet.turn(turn).error
    assert error is not None
    assert "secret" not in error.message


@pytest.mark.parametrize(
    "field", ["steps", "tokens", "cost", "calibration", "contexts", "covered", "generation"]
)
def test_a_conversation_whose_meta_hash_is_not_ours(
    bench: Bench, client: redis.Redis, field: str
) -> None:
    turn_id, behind = bench.enqueue(), bench.enqueue()
    client.hset(conversation_keys(C).meta, field, "[[[")
    answer = bench.try_claim(turn_id)
    # The conversation goes on: its turn is claimed, or ends with what is wrong.
    assert isinstance(answer, Claim | Unreadable)
    bench.store.commit(answer.lease, Ending(status=TurnStatus.FAILED))
    assert bench.store.turn(turn_id).status is TurnStatus.FAILED
    assert isinstance(bench.try_claim(behind), Claim | Unreadable)


@pytest.mark.parametrize("field", ["events", "attempt", "dispatches", "losses", "spent_tokens"])
def test_a_turn_whose_counts_are_not_numbers(bench: Bench, client: redis.Redis, field: str) -> None:
    turn_id, behind = bench.enqueue(), bench.enqueue()
    bench.claim(turn_id)
    bench.expire_lease(C)
    client.hset(turn_keys(turn_id).turn, field, "[[[")
    answer = bench.try_claim(turn_id)
    assert isinstance(answer, Claim | Unreadable)
    wakeup = bench.store.commit(answer.lease, Ending(status=TurnStatus.FAILED))
    assert wakeup is not None
    assert wakeup.turn_id == behind
    events = bench.store.events({turn_id: -1}, 0)[turn_id]
    assert events[-1].type is EventType.FAILED
    assert [event.number for event in events] == list(range(len(events)))


def test_an_index_that_is_not_one_keeps_no_other_from_the_sweep(
    bench: Bench, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    bench.enqueue()
    bench.overdue_now(C)
    partition = partition_of_turn(bench.enqueue("other"))
    client.set(due_key(partition), "[[[")
    client.set(claimed_key(partition), "[[[")
    for _ in range(2):
        assert bench.store.overdue() == [C]
        assert bench.store.claimed() == {}
        assert bench.store.orphan("nobody") == []
    assert caplog.text.count("due.unreadable") == 1
