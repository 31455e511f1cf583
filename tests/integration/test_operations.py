"""Operations that a producer repeats by their id, and what stays in Redis after them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from agentapi.conversation.messages import Message, UserMessage, dumps
from agentapi.ids import create_turn_id
from agentapi.redis.keys import conversation_keys, turn_keys
from agentapi.stores import Ending, ForgottenTurn
from agentapi.turns import OnBusy, TurnStatus
from tests.conformance.stores import Bench, C, on_redis
from tests.conformance.test_busy import accept

KEYS = conversation_keys(C)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    bench = on_redis(redis_url)
    yield bench
    bench.store.close()


def said(text: str) -> Message:
    return UserMessage(content=text)


def append(bench: Bench, operation: str) -> None:
    args = [operation, "", "", 0, 0, dumps(said(operation))]
    scripts = bench.store._scripts  # type: ignore[attr-defined]
    scripts.call("append", [KEYS.messages, KEYS.meta, KEYS.inbox], args)


def test_an_append_is_known_whatever_came_in_between(bench: Bench, client: redis.Redis) -> None:
    for operation in ("one", "two", "one", "three", "two", "one"):
        append(bench, operation)
    assert bench.store.history(C) == [said("one"), said("two"), said("three")]
    operations = client.keys("agentapi:{*}:op:*")
    assert len(operations) == 3
    assert all(0 < client.pttl(key) <= 3_600_000 for key in operations)


def test_a_reset_is_known_whatever_came_in_between(bench: Bench) -> None:
    scripts = bench.store._scripts  # type: ignore[attr-defined]

    def reset(operation: str) -> int:
        reply: Any = scripts.call(
            "reset", [KEYS.messages, KEYS.meta, KEYS.inbox], [operation, "*", KEYS.turns]
        )
        return int(reply[1])

    append(bench, "a")
    append(bench, "b")
    assert reset("first") == 2
    append(bench, "c")
    assert reset("second") == 1
    append(bench, "d")
    assert (reset("first"), reset("second")) == (2, 1)
    assert bench.store.history(C) == [said("d")]


def test_a_merged_message_is_remembered_as_long_as_the_turn_that_it_joined(
    bench: Bench, client: redis.Redis
) -> None:
    first = bench.enqueue()
    merged = create_turn_id(C)
    accept(bench, OnBusy.MERGE, merged)
    key = turn_keys(merged).turn
    assert client.pttl(key) == -1
    bench.store.commit(bench.claim(first).lease, Ending(status=TurnStatus.FAILED))
    assert client.pttl(key) > 0
    bench.store.retry(first, "operation")
    assert client.pttl(key) == -1
    bench.store.cancel(first)
    assert client.pttl(key) > 0


def test_deleting_a_turn_deletes_what_it_took_in(bench: Bench, client: redis.Redis) -> None:
    first = bench.enqueue()
    accept(bench, OnBusy.MERGE)
    bench.store.cancel(first)
    assert isinstance(bench.store.conversations.forget(C, first, "operation"), ForgottenTurn)
    assert client.keys("agentapi:{*}:t:*") == []


def test_a_retry_gives_a_forgotten_conversation_its_idle_time(
    bench: Bench, client: redis.Redis
) -> None:
    turn_id = bench.enqueue(idle_time=60, user_id="ann")
    bench.store.commit(bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED))
    assert client.pttl(KEYS.meta) > 0
    bench.forget(C)
    bench.store.retry(turn_id, "operation")
    assert client.pttl(KEYS.meta) == -1
    bench.complete(bench.claim(turn_id).lease)
    assert 0 < client.pttl(KEYS.meta) <= 60_000
    assert client.hget(KEYS.meta, "user") == b"ann"


def test_a_repeat_makes_no_conversation(bench: Bench, client: redis.Redis) -> None:
    turn_id = create_turn_id(C, "key")
    bench.enqueue(turn_id=turn_id)
    bench.complete(bench.claim(turn_id).lease)
    bench.forget(C)
    bench.enqueue(turn_id=turn_id)
    assert not client.exists(KEYS.meta)


def test_the_bytes_of_a_failed_turn_go_with_it(bench: Bench, client: redis.Redis) -> None:
    from tests.conformance.test_blobs import CONTENT, enqueue

    turn_id = enqueue(bench)
    bench.store.commit(bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED))
    assert not client.exists(KEYS.blobs)
    aside = f"{turn_keys(turn_id).turn}:blobs"
    assert client.hgetall(aside) == {name.encode(): data for name, data in CONTENT.blobs.items()}
    assert 0 < client.pttl(aside) <= client.pttl(turn_keys(turn_id).turn) + 1000


def test_ids_of_operations_are_anybodys_text(bench: Bench) -> None:
    for operation in ("", "x:op:y", "{007}", uuid.uuid4().hex, "\0"):
        for _ in range(2):
            append(bench, operation)
    assert len(bench.store.history(C)) == 5
