"""What an ended turn costs in Redis, and how many are kept."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import orjson
import pytest
import redis

from agentapi.conversation.messages import AssistantMessage, Usage
from agentapi.errors import UnreadableRecord
from agentapi.ids import PARTITIONS, partition_of
from agentapi.redis.keys import conversation_keys, list_keys, turn_keys
from agentapi.signals import LeaseLost
from agentapi.stores import NewEvent, RefusalReason
from agentapi.stores.lists import TurnQuery
from agentapi.turns import EventType, ModelStep
from tests.conformance.stores import Bench, completed, on_redis

RECORD = 300
"""Bytes of an ended turn beside its messages."""

EVENTS = 512
"""Bytes of a few events, the name of their key included."""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def bytes_of(client: redis.Redis, key: str) -> int:
    return int(client.memory_usage(key, samples=0) or 0)


def conversation() -> str:
    return f"gw:local:conv_{uuid.uuid4().hex}"


def run(bench: Bench, conversation_id: str, reply: str = "one two three four five") -> str:
    turn_id = bench.enqueue(
        conversation_id, "hi", tenant_id="local", idle_time=bench.settings.turn_retention
    )
    lease = bench.claim(turn_id, conversation_id, owner="celery@a-machine").lease
    bench.store.emit([(lease, 1, [NewEvent(type=EventType.DELTA, data={"text": reply})])])
    usage = Usage(input_tokens=312, output_tokens=45, cost=0.000123)
    said = AssistantMessage(content=reply, model="gpt-5-mini")
    step = ModelStep(message=said, usage=usage, seconds=1.5)
    bench.store.commit(lease, replace(completed(turn_id, "hi", reply), usage=usage, last_step=step))
    return turn_id


def test_an_ended_turn_keeps_its_messages_once(redis_url: str, client: redis.Redis) -> None:
    bench = on_redis(redis_url)
    for reply in ("yo", "word " * 2000):
        turns = [run(bench, conversation(), reply) for _ in range(30)]
        # The allocator counts up to 16 bytes more where it cannot split a piece of memory.
        assert min(bytes_of(client, turn_keys(turn).turn) for turn in turns) <= RECORD
    assert 0 < client.pttl(turn_keys(turns[0]).turn) <= bench.settings.turn_retention * 1000
    bench.store.close()


@pytest.mark.parametrize("said", ["hi", "a longer message " * 10, 'with "quotes"'])
@pytest.mark.parametrize("claims", [1, 2])
def test_the_record_is_in_one_piece_whatever_the_turn_went_through(
    redis_url: str, client: redis.Redis, said: str, claims: int
) -> None:
    bench = on_redis(redis_url)
    at = conversation()
    turn_id = bench.enqueue(at, said, idle_time=bench.settings.turn_retention)
    for _ in range(claims - 1):
        bench.store.release(bench.claim(turn_id, at).lease)
    bench.complete(bench.claim(turn_id, at).lease, said)
    key = turn_keys(turn_id).turn
    assert client.object("encoding", key) == b"listpack"
    pieces = client.hlen(key) - 2
    assert {*client.hkeys(key)} == {b"v", b"status", *(b"%d" % n for n in range(pieces))}
    assert (bench.store.turn(turn_id).input, bench.store.turn(turn_id).attempt) == (said, claims)
    bench.store.close()


def test_a_packed_record_is_whole(redis_url: str, client: redis.Redis) -> None:
    bench = on_redis(redis_url)
    at = conversation()
    turn_id = run(bench, at)
    turn, past = bench.store.turn(turn_id), bench.store.past(turn_id)
    assert (turn.conversation_id, turn.tenant_id, turn.agent) == (at, "local", "a")
    assert (turn.worker, turn.attempt, turn.steps) == ("celery@a-machine", 1, 1)
    assert turn.usage == Usage(input_tokens=312, output_tokens=45, cost=0.000123)
    assert turn.started_at is not None
    assert turn.ended_at is not None
    assert turn.created_at <= turn.started_at <= turn.ended_at <= past.now
    assert [(mark.kind, mark.at) for mark in past.marks] == [
        ("c", turn.started_at),
        ("m", turn.ended_at),
    ]
    assert list(past.marks[1].data) == [1500, "gpt-5-mini", 312, 45, 0, 0.000123, "", 0, 1]
    bench.store.close()


def test_what_is_written_after_the_end_counts(redis_url: str) -> None:
    bench = on_redis(redis_url)
    at = conversation()
    turn_id = bench.enqueue(at, metadata={"a": "before"})
    lease = bench.claim(turn_id, at).lease
    bench.complete(lease)
    store = bench.store.conversations
    assert store.relabel(at, turn_id, {"a": "after"}, "op")
    late = replace(lease, token="another")
    for _ in range(2):
        with pytest.raises(LeaseLost):
            bench.complete(late)
    assert bench.store.turn(turn_id).metadata == {"a": "after"}
    assert [mark.kind for mark in bench.store.past(turn_id).marks] == ["c", "f"]
    bench.store.close()


@pytest.mark.parametrize(
    ("field", "value", "newer"),
    [("0", b"\x93", False), ("0", b"\x91\xc2", False), ("1", b"", False), ("v", b"4", True)],
)
def test_a_packed_record_that_cannot_be_read_hides_no_other(
    redis_url: str, client: redis.Redis, field: str, value: bytes, newer: bool
) -> None:
    bench = on_redis(redis_url)
    at = conversation()
    broken, whole = run(bench, at), run(bench, at)
    client.hset(turn_keys(broken).turn, field, value)
    with pytest.raises(UnreadableRecord) as caught:
        bench.store.turn(broken)
    assert caught.value.newer == newer
    refusal = bench.try_claim(broken, at)
    assert (refusal.reason, refusal.turn) == (RefusalReason.ENDED, None)
    found = bench.store.lists.turns(TurnQuery(tenant_id="local"), 10).items
    assert [turn.turn_id for turn in found] == [whole]
    assert bench.store.calls.pending(broken) == []
    bench.store.close()


def test_events_of_an_ended_turn_take_what_they_are(redis_url: str, client: redis.Redis) -> None:
    bench = on_redis(redis_url)
    turn_id = run(bench, conversation())
    key = turn_keys(turn_id).events
    assert bytes_of(client, key) <= EVENTS
    assert 0 < client.pttl(key) <= bench.settings.events_retention * 1000
    found = bench.store.events({turn_id: -1}, 0)[turn_id]
    assert [event.number for event in found] == [0, 1, 2]
    assert bench.store.events({turn_id: 0}, 0)[turn_id] == found[1:]
    bench.store.close()


def test_many_events_are_little_more_than_their_json(redis_url: str, client: redis.Redis) -> None:
    bench = on_redis(redis_url)
    turn_id = bench.enqueue("c", "hi")
    lease = bench.claim(turn_id, "c").lease
    for number in range(1, 400):
        event = NewEvent(type=EventType.DELTA, data={"text": f"piece number {number} of them"})
        bench.store.emit([(lease, number, [event])])
    bench.complete(lease)
    found = bench.store.events({turn_id: -1}, 0)[turn_id]
    size = sum(len(orjson.dumps({"type": e.type, "data": e.data})) for e in found)
    assert bytes_of(client, turn_keys(turn_id).events) <= 2 * size
    bench.store.close()


def test_a_turn_of_a_release_that_reads_no_such_records_keeps_them(
    redis_url: str, client: redis.Redis
) -> None:
    bench = on_redis(redis_url, compact_turns=False)
    turn_id = run(bench, conversation())
    fields = client.hgetall(turn_keys(turn_id).turn)
    assert fields[b"v"] == b"1"
    assert fields[b"input"] == b"hi"
    assert len(orjson.loads(fields[b"outcome"])["messages"]) == 2
    bench.store.close()


def test_the_oldest_turns_go_with_what_was_made_for_them(
    redis_url: str, client: redis.Redis
) -> None:
    # Two of each status are kept in each partition.
    bench = on_redis(redis_url, turn_limit=2 * PARTITIONS, list_limit=1)
    partition = partition_of(conversation())
    mine = (c for c in iter(conversation, None) if partition_of(c) == partition)
    unnamed = [next(mine) for _ in range(4)]
    turns = [run(bench, c) for c in unnamed]
    named = next(mine)
    kept = bench.enqueue(named, "hi", tenant_id="local")
    bench.complete(bench.claim(kept, named).lease)
    # One that somebody continues stays, whatever becomes of its first turn.
    again = run(bench, unnamed[1])
    [completed_list] = list_keys(partition, ["completed"])
    for _ in range(200):
        if client.zcard(completed_list) <= 2:
            break
        last = bench.enqueue(next(mine), "hi")
        bench.store.cancel(last)
    assert client.zcard(completed_list) == 2
    assert [bool(client.exists(turn_keys(t).turn)) for t in [*turns, kept, again]] == [
        *[False] * 4,
        True,
        True,
    ]
    assert [bool(client.exists(conversation_keys(c).messages)) for c in [*unnamed, named]] == [
        False,
        True,
        False,
        False,
        True,
    ]
    assert completed(again).messages[0].content in bench.store.turn(again).input
    bench.store.close()
