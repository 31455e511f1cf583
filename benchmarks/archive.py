"""Measures a conversation's cost in Redis before and after it moves to the archive."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

import redis

from agentapi import load_settings
from agentapi.conversation.messages import AssistantMessage, Message, UserMessage, dumps
from agentapi.conversation.window import Window
from agentapi.ids import create_turn_id
from agentapi.stores import Claim, Ending, RedisTurnStore
from agentapi.stores.data import Staging
from agentapi.turns import NewTurn, TurnStatus
from benchmarks.contest import Servers
from benchmarks.processes import server_cpu
from benchmarks.results import Metric, Results
from tools.postgres import postgres

MESSAGES: Final = 100
TEXT: Final = "The parcel left our depot this morning, and should reach you within two days. " * 4
"""A message of about 300 bytes."""

TURNS: Final = 4000
ENDED: Final = f"archive: {TURNS} ended turns with replies of five words"

CASE: Final = f"archive: conversations of {MESSAGES} messages of 300 bytes"


def archive(results: Results, servers: Servers, *, conversations: int) -> None:
    """Move conversations to SQLite and PostgreSQL, and restore some of them."""
    file = servers.folder / f"archive-{uuid.uuid4().hex}.db"
    _measure(results, servers, "SQLite", f"sqlite:///{file}", conversations)
    with postgres() as server:
        url = f"postgresql://{server.fresh()}"
        _measure(results, servers, "PostgreSQL", url, conversations)


def _measure(results: Results, servers: Servers, who: str, url: str, count: int) -> None:
    server = redis.Redis.from_url(servers.redis_url)
    server.flushall()
    settings = load_settings(redis_url=servers.redis_url, archive_url=url, archive_after=1e-9)
    store = RedisTurnStore(settings)
    moving = store.archiving
    assert moving is not None
    empty = _used(server)
    names = [f"user:{number}" for number in range(count)]
    for name in names:
        _fill(store, name)
    before = _used(server)
    added = Metric(case=CASE, name="claim of the first turn", unit="ms", base="in Redis")
    for seconds in _claims(store, names[: count // 4]):
        results.add(added, "in Redis", seconds * 1000)
    moving.ready()
    cold = names[count // 4 :]
    began = time.perf_counter()
    for name in cold:
        moving.move(name)
    took = time.perf_counter() - began
    results.add(Metric(case=CASE, name="moves of one worker", unit="/s"), who, len(cold) / took)
    size = Metric(case=CASE, name="Redis, one conversation", unit="bytes", base="in Redis")
    results.add(size, "in Redis", (before - empty) / count)
    results.add(size, f"in {who}", sum(_size(server, name) for name in cold) / len(cold))
    for seconds in _claims(store, cold[: count // 4]):
        results.add(added, f"in {who}", seconds * 1000)
    _at_rest(results, server, store)
    store.close()
    _move_turns(results, servers, server, who, url)
    server.close()


def _move_turns(
    results: Results, servers: Servers, server: redis.Redis, who: str, url: str
) -> None:
    """Move turns with messages of five words, and read some of them again."""
    server.flushall()
    settings = load_settings(
        redis_url=servers.redis_url,
        archive_url=url,
        archive_turns_after=0.001,
        events_retention=0.001,
    )
    store = RedisTurnStore(settings)
    moving = store.archiving
    assert moving is not None
    moving.ready()
    turn_ids = [ended(store, f"user:{number}") for number in range(TURNS)]
    before = _used(server)
    moved, began = 0, time.perf_counter()
    while moved < TURNS:
        moving.turns.begin()
        moved += moving.turns.move_some()[0]
    took = time.perf_counter() - began
    results.add(Metric(case=ENDED, name="turns moved by one worker", unit="/s"), who, TURNS / took)
    freed = Metric(case=ENDED, name="Redis, freed for one turn", unit="bytes")
    results.add(freed, who, (before - _used(server)) / TURNS)
    read = Metric(case=ENDED, name="read of a turn in the archive", unit="ms")
    for turn_id in turn_ids[:100]:
        began = time.perf_counter()
        assert store.turn(turn_id).text
        results.add(read, who, (time.perf_counter() - began) * 1000)
    server.flushall()
    idle = Metric(case=ENDED, name="a look for turns when there are none", unit="ms")
    for _ in range(10):
        began = time.perf_counter()
        moving.turns.move_some()
        results.add(idle, who, (time.perf_counter() - began) * 1000)
    store.close()


def ended(
    store: RedisTurnStore,
    conversation: str,
    message: str = "Where is it?",
    reply: str = "It is on its way.",
) -> str:
    """Let a turn run to its end; returns its id."""
    turn_id = create_turn_id(conversation)
    new = NewTurn(turn_id=turn_id, conversation_id=conversation, agent="a", input=message)
    store.enqueue([new])
    claim = store.claim(
        conversation,
        turn_id,
        owner="worker",
        token="token",
        window=Window(messages=None),
        isolated=True,
    )
    assert isinstance(claim, Claim)
    said: list[Message] = [
        UserMessage(content=new.input, turn_id=turn_id),
        AssistantMessage(content=reply, turn_id=turn_id),
    ]
    store.commit(claim.lease, Ending(status=TurnStatus.COMPLETED, messages=said, steps=1))
    return turn_id


def _at_rest(results: Results, server: redis.Redis, store: RedisTurnStore) -> None:
    """Measure a step of the search, which runs every two seconds: Redis's processor time and
    ours."""
    moving = store.archiving
    assert moving is not None
    pipeline: Any = server.pipeline(transaction=False)
    for number in range(50_000):
        key = f"agentapi:{{{number % 256:03d}}}:c:rest:{number}:meta"
        pipeline.hset(key, mapping={"created": 1, "updated": 1, "archived": "0 1", "user": "u"})
    pipeline.execute()
    theirs, ours, steps = server_cpu(server), time.process_time(), 0
    for _ in moving.cold():
        steps += 1
    case = "archive: a step of the search for what is cold, every two seconds"
    redis_cost = (server_cpu(server) - theirs) / steps * 1000
    own_cost = (time.process_time() - ours) / steps * 1000
    results.add(Metric(case=case, name="processor time of Redis", unit="ms"), "step", redis_cost)
    results.add(Metric(case=case, name="processor time of the worker", unit="ms"), "step", own_cost)


def _fill(store: RedisTurnStore, name: str) -> None:
    staging = Staging(conversation_id=name, operation=uuid.uuid4().hex)
    kinds = (UserMessage, AssistantMessage)
    said = [
        dumps(kinds[n % 2](content=TEXT, turn_id=create_turn_id(name))) for n in range(MESSAGES)
    ]
    store.data.stage(staging, 0, said)
    fields = {"created": "1000", "updated": "1000", "user": "u", "tenant": "", "agent": "a"}
    counts = {"turns": "50", "steps": "50", "tokens": "9000", "cost": "0.12"}
    store.data.restore(staging, {**fields, **counts}, messages=MESSAGES, digest=name, replace=False)


def _claims(store: RedisTurnStore, names: Sequence[str]) -> list[float]:
    """The seconds of each claim of a new turn."""
    found = []
    for name in names:
        turn_id = create_turn_id(name)
        store.enqueue([NewTurn(turn_id=turn_id, conversation_id=name, agent="a", input="hi")])
        began = time.perf_counter()
        claim = store.claim(
            name,
            turn_id,
            owner="bench",
            token=uuid.uuid4().hex,
            window=Window(messages=None),
            isolated=True,
        )
        found.append(time.perf_counter() - began)
        assert isinstance(claim, Claim)
        assert len(claim.history) == MESSAGES
    return found


def _used(server: redis.Redis) -> int:
    info: Any = server.info("memory")
    return int(info["used_memory"])


def _size(server: redis.Redis, name: str) -> int:
    keys: Any = server.keys(f"agentapi:*:c:{name}:*")
    return sum(int(server.memory_usage(key) or 0) for key in keys)
