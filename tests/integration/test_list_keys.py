"""The lists' keys in Redis: bounded, trimmed, and never in a turn's way."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from agentapi.ids import PARTITIONS, partition_of
from agentapi.redis.keys import conversation_keys, ends_key, list_keys, turn_keys
from agentapi.stores import FROM_START, ConversationQuery, RedisTurnStore, TurnQuery
from agentapi.turns import TurnStatus
from tests.conformance.stores import Bench, C, beside, completed, on_redis

P = partition_of(C)
ENDED = ("completed", "failed", "cancelled")


def key(name: str) -> str:
    return list_keys(P, [name])[0]


def done(bench: Bench, conversation: str = C) -> str:
    turn_id = bench.enqueue(conversation)
    bench.store.commit(bench.claim(turn_id, conversation).lease, completed(turn_id))
    return turn_id


def length(client: redis.Redis, name: str) -> int:
    count: Any = client.zcard(key(name))
    return int(count)


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def test_a_turn_is_in_one_list_at_a_time(client: redis.Redis, redis_url: str) -> None:
    bench = on_redis(redis_url)

    def where() -> set[str]:
        return {name for name in ("queued", "begun", *ENDED) if length(client, name)}

    turn_id = bench.enqueue()
    assert where() == {"queued"}
    lease = bench.claim(turn_id).lease
    assert where() == {"begun"}
    bench.store.release(lease)
    assert where() == {"begun"}
    bench.store.commit(bench.claim(turn_id).lease, completed(turn_id))
    assert where() == {"completed"}
    bench.store.conversations.forget(C, turn_id, "op")
    assert where() == set()


def test_lists_are_bounded_in_number(client: redis.Redis, redis_url: str) -> None:
    bench = on_redis(
        redis_url, list_limit=10 * PARTITIONS, turn_limit=0, ends_limit=100 * PARTITIONS
    )
    for number in range(400):
        done(bench, beside(f"c:{number}") if partition_of(f"c:{number}") == P else C)
    # Every second turn or so trims a list, another one each time.
    assert length(client, "completed") < 150
    assert client.xlen(ends_key(P)) < 350
    [newest] = bench.store.lists.turns(TurnQuery(), 1).items
    assert newest.status is TurnStatus.COMPLETED


def test_conversations_are_bounded_in_number(client: redis.Redis, redis_url: str) -> None:
    bench = on_redis(redis_url, list_limit=5 * PARTITIONS)
    name = C
    for _ in range(200):
        name = beside(name)[:400]
        done(bench, name)
    assert length(client, "conversations") < 150


def test_entries_of_expired_turns_are_removed(client: redis.Redis, redis_url: str) -> None:
    bench = on_redis(redis_url, turn_retention=0.02)
    for _ in range(30):
        done(bench)
    time.sleep(0.03)
    for _ in range(200):
        done(bench)
    # As long as what has not expired yet, and what one look has left.
    assert length(client, "completed") < 150


def test_entries_of_lost_records_are_removed(client: redis.Redis, redis_url: str) -> None:
    bench = on_redis(redis_url, inbox_limit=1000)
    for _ in range(50):
        bench.lose(bench.enqueue())
    for number in range(50):
        conversation = f"{C}:{number}"
        while partition_of(conversation) != P:
            conversation += "x"
        done(bench, conversation)
        client.delete(conversation_keys(conversation).meta)
    assert len(bench.store.lists.turns(TurnQuery(), 1000).items) == 50
    assert length(client, "queued") == 0
    assert [c.conversation_id for c in _conversations(bench)] == [C]
    assert length(client, "conversations") == 1


def _conversations(bench: Bench) -> Any:
    return bench.store.lists.conversations(ConversationQuery(), 1000).items


def test_conversations_whose_idle_time_is_over_do_not_pile_up(
    client: redis.Redis, redis_url: str
) -> None:
    bench = on_redis(redis_url)
    name = C
    for _ in range(150):
        name = beside(name)[:400]
        done(bench, name)
        client.delete(conversation_keys(name).meta)
    assert length(client, "conversations") < 120


def test_turns_of_a_release_without_lists_are_absent(client: redis.Redis, redis_url: str) -> None:
    """Their scripts write no entries; nothing fails, now or later."""
    bench = on_redis(redis_url)
    turns = [bench.enqueue() for _ in range(4)]
    first = bench.claim(turns[0]).lease
    client.delete(key("queued"), key("begun"), key("conversations"))
    bench.store.commit(first, completed(turns[0]))
    bench.store.commit(bench.claim(turns[1]).lease, completed(turns[1]))
    bench.store.cancel(turns[2])
    bench.store.conversations.forget(C, turns[0], "op")
    assert bench.store.lists.turns(TurnQuery(), 100).items == []
    assert bench.store.lists.ends(FROM_START, 100).ends == []
    assert _conversations(bench) == []
    new = bench.enqueue()
    assert [turn.turn_id for turn in bench.store.lists.turns(TurnQuery(), 100).items] == [new]


def test_a_turn_that_another_release_ended_is_not_shown_as_open(
    client: redis.Redis, redis_url: str
) -> None:
    bench = on_redis(redis_url)
    turn_id = bench.enqueue()
    client.hset(turn_keys(turn_id).turn, "status", "completed")
    running = frozenset({TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.PARKED})
    assert bench.store.lists.turns(TurnQuery(statuses=running), 100).items == []


@pytest.mark.parametrize("name", ["queued", "begun", *ENDED, "conversations"])
def test_a_broken_list_keeps_no_turn_from_its_end(
    client: redis.Redis, redis_url: str, name: str
) -> None:
    bench = on_redis(redis_url)
    client.set(key(name), "no list")
    for number in range(20):
        turn_id = done(bench, C if number % 2 else f"{C}:{number}")
        assert bench.store.turn(turn_id).status is TurnStatus.COMPLETED
    bench.store.cancel(bench.enqueue())
    bench.store.lists.turns(TurnQuery(), 100)
    assert isinstance(_conversations(bench), list)


def test_a_broken_stream_of_ends_keeps_no_turn_from_its_end(
    client: redis.Redis, redis_url: str
) -> None:
    bench = on_redis(redis_url)
    client.set(ends_key(P), "no stream")
    client.set(f"agentapi:{{{P:03d}}}:untold", "no index")
    bench.store.hooks.expect(["a"], 60)
    for _ in range(20):
        assert bench.store.turn(done(bench)).status is TurnStatus.COMPLETED
    assert bench.store.hooks.untold() == []


def test_records_that_no_release_wrote(client: redis.Redis, redis_url: str) -> None:
    bench = on_redis(redis_url)
    good, bad, strange = done(bench), done(bench), done(bench)
    client.hset(
        turn_keys(bad).turn,
        mapping={
            "created": "x",
            "attempt": "y",
            "steps": "",
            "kind": "z",
            "outcome": "{",
            "user": b"\xff",
        },
    )
    client.hset(turn_keys(strange).turn, "status", "unheard of")
    client.hset(conversation_keys(C).meta, mapping={"updated": "x", "tokens": "y", "metadata": "["})
    client.xadd(ends_key(P), {"what": "nothing"})
    found = {turn.turn_id for turn in bench.store.lists.turns(TurnQuery(), 100).items}
    assert found == {good, bad}
    [conversation] = _conversations(bench)
    assert (conversation.tokens, dict(conversation.metadata)) == (0, {})
    assert len(bench.store.lists.ends(FROM_START, 100).ends) == 3


def test_no_lists_cost_no_key(client: redis.Redis, redis_url: str) -> None:
    bench = on_redis(redis_url, list_limit=0)
    done(bench)
    assert client.keys("agentapi:*:list:queued") == client.keys("agentapi:*:ends") == []
    assert isinstance(bench.store, RedisTurnStore)
