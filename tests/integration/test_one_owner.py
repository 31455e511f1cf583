"""Two workers never write the same turn, whatever Redis forgets between their claims."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from agentapi.conversation.messages import AssistantMessage, UserMessage
from agentapi.errors import LeaseLost
from agentapi.ids import create_turn_id
from agentapi.redis.keys import conversation_keys, turn_keys
from agentapi.stores import Ending, Lease, NewEvent, Renewal
from agentapi.turns import EventType, HeldCalls, Question, TurnStatus
from orchestrator.stack import start_valkey
from tests.conformance.stores import Bench, C, completed, model_step, on_redis
from tests.faults import until


def assert_fenced(bench: Bench, zombie: Lease, mine: Lease) -> None:
    """The one lease writes, the other one writes nothing, by any transition."""
    store, turn_id = bench.store, mine.turn_id
    events = store.events({turn_id: -1}, 0)
    held = HeldCalls(questions=[Question(call_id="q", tool="t", arguments={})])
    for write in (
        lambda: store.record(zombie, 0, model_step("zombie")),
        lambda: store.commit(zombie, completed(turn_id, reply="the zombie's")),
        lambda: store.park(zombie, 1, failures=1, steps=0, reason="provider"),
        lambda: store.calls.suspend(zombie, held),
        lambda: store.release(zombie),
    ):
        with pytest.raises(LeaseLost):
            write()
    store.emit([(zombie, 1, [NewEvent(type=EventType.DELTA, data={"text": "zombie"})])])
    assert store.renew([zombie, mine]) == [Renewal(held=False), Renewal(held=True)]
    assert store.events({turn_id: -1}, 0) == events
    store.record(mine, 0, model_step("mine"))
    store.commit(mine, completed(turn_id, reply="mine"))
    with pytest.raises(LeaseLost):
        store.commit(zombie, completed(turn_id, reply="the zombie's"))
    assert store.history(C) == [
        UserMessage(content="hi", turn_id=turn_id),
        AssistantMessage(content="mine", turn_id=turn_id),
    ]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A master and its replica."""
    master, master_url = start_valkey(tmp_path / "master")
    replica, replica_url = start_valkey(tmp_path / "replica")
    with redis.Redis.from_url(replica_url) as copy:
        copy.replicaof("127.0.0.1", master_url.rpartition(":")[2].partition("/")[0])
        until(lambda: copy.info("replication")["master_link_status"] == "up")
    yield master_url, replica_url
    replica.stop()
    master.stop()


def test_a_claim_that_a_failover_forgot(pair: tuple[str, str]) -> None:
    """The replica is promoted before it has seen the claim."""
    before, after = on_redis(pair[0]), on_redis(pair[1])
    turn_id = before.enqueue()
    with redis.Redis.from_url(pair[0]) as master, redis.Redis.from_url(pair[1]) as replica:
        assert master.wait(1, 60_000) == 1
        replica.replicaof("NO", "ONE")
    zombie = before.claim(turn_id).lease
    before.store.close()
    assert_fenced(after, zombie, after.claim(turn_id).lease)
    after.store.close()


def test_a_claim_that_a_failover_forgot_by_clocks_that_differ(redis_url: str) -> None:
    """The clocks of two servers may give two claims the same epoch."""
    bench = on_redis(redis_url)
    turn_id = bench.enqueue()
    zombie = bench.claim(turn_id).lease
    bench.expire_lease(C)
    mine = bench.claim(turn_id).lease
    with redis.Redis.from_url(redis_url) as client:
        client.hset(conversation_keys(C).lease, "epoch", zombie.epoch)
    assert_fenced(
        bench,
        zombie,
        Lease(
            conversation_id=C, turn_id=turn_id, epoch=zombie.epoch, token=mine.token, generation=0
        ),
    )
    bench.store.close()


def test_a_conversation_that_was_deleted_and_begun_again(redis_url: str) -> None:
    """The same idempotency key gives the same turn id."""
    bench = on_redis(redis_url)
    turn_id = create_turn_id(C, "key")
    bench.enqueue(turn_id=turn_id)
    zombie = bench.claim(turn_id).lease
    keys, turn = conversation_keys(C), turn_keys(turn_id)
    with redis.Redis.from_url(redis_url) as client:
        # What deleting a conversation over HTTP deletes, with its turns.
        client.delete(keys.meta, keys.messages, keys.lease, keys.blobs, keys.inbox)
        client.delete(turn.turn, turn.events, turn.journal, turn.calls)
    bench.enqueue(turn_id=turn_id)
    assert_fenced(bench, zombie, bench.claim(turn_id).lease)
    bench.store.close()


def test_a_conversation_that_was_forgotten_before_a_retry(redis_url: str) -> None:
    bench = on_redis(redis_url)
    turn_id = bench.enqueue()
    zombie = bench.claim(turn_id).lease
    bench.expire_lease(C)
    bench.store.commit(bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED))
    keys = conversation_keys(C)
    with redis.Redis.from_url(redis_url) as client:
        # Its idle time is over.
        client.delete(keys.meta, keys.messages, keys.blobs)
    bench.store.retry(turn_id, "operation")
    assert_fenced(bench, zombie, bench.claim(turn_id).lease)
    bench.store.close()


def test_no_write_makes_a_turn_that_was_deleted(redis_url: str) -> None:
    bench = on_redis(redis_url)
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    with redis.Redis.from_url(redis_url) as client:
        client.delete(turn_keys(turn_id).turn)
        with pytest.raises(LeaseLost):
            bench.store.record(lease, 0, model_step())
        with pytest.raises(LeaseLost):
            bench.complete(lease)
        bench.store.emit([(lease, 1, [NewEvent(type=EventType.DELTA, data={"text": "x"})])])
        assert bench.store.renew([lease]) == [Renewal(held=False)]
        assert not client.exists(turn_keys(turn_id).turn)
    bench.store.close()
