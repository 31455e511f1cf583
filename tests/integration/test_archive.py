"""Conversations in the archive, as those see them who read, list, copy and delete them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis.asyncio

from agentapi import Settings, load_settings
from agentapi.archive.protocol import Archive, ArchivedConversation
from agentapi.conversation.window import Window
from agentapi.errors import ArchiveLost, ArchiveUnavailable
from agentapi.ids import create_turn_id
from agentapi.memory import RedisMemory
from agentapi.redis.keys import conversation_keys
from agentapi.stores import Claim, RedisTurnStore
from agentapi.stores.conversations import Dropped, Unended
from agentapi.stores.data import Whose
from agentapi.stores.lists import ConversationQuery
from agentapi.stores.redis.archiving import RedisArchiving
from agentapi.turns import NewTurn
from orchestrator.cli.lists import _print_conversations
from orchestrator.data.exporting import Export, count
from orchestrator.data.forgetting import Forgetting, count_user
from orchestrator.gateway.conversations.records import Conversations
from tests.conformance.stores import Bench, C, completed, on_redis
from tests.fakes.archive import MemoryArchive

ROOT = Path(__file__).parents[2]


@dataclass
class World:
    bench: Bench
    store: RedisTurnStore
    moving: RedisArchiving
    archive: Archive

    def says(self, conversation: str = C, **more: str) -> str:
        turn_id = self.bench.enqueue(conversation, **more)
        self.bench.complete(self.bench.claim(turn_id, conversation).lease)
        return turn_id


@pytest.fixture
def world(redis_url: str, tmp_path: Path) -> Iterator[World]:
    """A store whose conversations are all cold, and an archive in a file."""
    settings = settings_of(redis_url, tmp_path)
    store = RedisTurnStore(settings)
    bench = on_redis(redis_url)
    bench.store = store
    assert store.archiving is not None
    yield World(bench, store, store.archiving, store.archiving.archive)
    store.close()


def settings_of(redis_url: str, folder: Path) -> Settings:
    url = f"sqlite:///{folder / 'archive.db'}"
    return load_settings(redis_url=redis_url, archive_url=url, archive_after=1e-9)


def test_redis_keeps_a_marker_that_lists_can_show(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.says(user_id="ann", tenant_id="acme")
    before = world.store.conversations.find(C, "acme")
    [listed] = world.store.lists.conversations(ConversationQuery(), 9).items
    assert world.moving.move(C)
    keys = conversation_keys(C)
    assert world.store._client.exists(keys.messages, keys.blobs, keys.inbox, keys.lease) == 0
    assert world.store.conversations.find(C, "acme") == before
    [archived] = world.store.lists.conversations(ConversationQuery(), 9).items
    assert (listed.archived, archived) == (False, replace(listed, archived=True))
    _print_conversations([listed, archived], as_json=False)
    assert capsys.readouterr().out.count("yes") == 1
    # None of this has brought it back.
    assert world.moving.away(C) is not None


def test_it_comes_back_with_all_that_it_had(world: World) -> None:
    turn_id = world.says()
    client, keys = world.store._client, conversation_keys(C)
    client.hset(keys.blobs, mapping={"a": b"\x00\xff", "b": b"x" * 300_000})
    client.hset(keys.meta, mapping={"summary": "so far: ä", "covered": 1, "active:a": "b"})
    before = client.hgetall(keys.meta), client.lrange(keys.messages, 0, -1)
    assert world.moving.move(C)
    assert client.hexists(keys.meta, "summary") is False
    claim = world.bench.claim(world.bench.enqueue(C))
    assert [message.content for message in claim.history] == ["hi", "yo"]
    assert claim.summary.text == "so far: ä"
    assert claim.answering == "b"
    fields = client.hgetall(keys.meta)
    for name in (b"updated", b"epoch", b"returned"):
        fields.pop(name, None)
        before[0].pop(name, None)
    assert (fields, client.lrange(keys.messages, 0, -1)) == before
    assert client.hgetall(keys.blobs) == {b"a": b"\x00\xff", b"b": b"x" * 300_000}
    assert [message.content for message in world.store.turn(turn_id).messages] == ["hi", "yo"]
    assert world.moving.discard(0) == 1
    assert world.archive.count().conversations == 0


def test_what_has_an_idle_time_expires_in_both(world: World) -> None:
    world.says()
    client, keys = world.store._client, conversation_keys(C)
    client.hset(keys.meta, "ttl", 5_000_000)
    client.pexpire(keys.meta, 5_000_000)
    client.pexpire(keys.messages, 5_000_000)
    assert world.moving.move(C)
    assert world.moving.expire() == 0
    assert world.store.history(C)
    assert 0 < client.pttl(keys.messages) <= 5_000_000
    assert world.moving.move(C)
    world.moving.discard(0)
    [row] = world.archive.page()
    assert row.expires is not None
    assert [r.version for r in world.archive.expired(row.expires)] == [row.version]
    assert not world.archive.expired(row.expires - 1)


def test_an_export_leaves_it_where_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.says(tenant_id="acme")
    world.moving.move(C)
    read: list[str] = []
    get = world.archive.get

    def noted(conversation_id: str, version: str) -> ArchivedConversation | None:
        read.append(conversation_id)
        return get(conversation_id, version)

    monkeypatch.setattr(world.archive, "get", noted)
    lines = [json.loads(each) for each in Export(world.store, [C]).lines()]
    assert read == [C]
    assert [each["message"]["content"] for each in lines if each["type"] == "message"] == [
        "hi",
        "yo",
    ]
    assert world.moving.away(C) is not None
    assert count(world.store, [C]).messages == 2
    # A long conversation must not stay in memory.
    assert world.moving._peeked is None


def test_a_deletion_reaches_it(world: World) -> None:
    for number in range(3):
        world.says(f"ann:{number}", user_id="ann")
    world.says("bob", user_id="bob")
    for conversation in ("ann:0", "ann:1", "bob"):
        assert world.moving.move(conversation)
    whose = Whose(user_id="ann")
    counted = count_user(world.store, whose)
    assert (counted.conversations, counted.messages) == (3, 6)
    forgotten = Forgetting(world.store, whose, world.store.cancel, 1).run()
    assert (forgotten.conversations, forgotten.messages, forgotten.turns) == (3, 6, 3)
    assert [row.user_id for row in world.archive.page()] == ["bob"]
    dropped = world.store.conversations.drop("bob", None, "op")
    assert isinstance(dropped, Dropped)
    world.moving.discard(0)
    assert world.archive.count().conversations == 0


def test_a_process_without_the_archive_says_so(world: World, redis_url: str) -> None:
    world.says()
    world.moving.move(C)
    other = on_redis(redis_url)
    with pytest.raises(ArchiveUnavailable, match="AGENTAPI_ARCHIVE_URL"):
        other.claim(other.enqueue(C))
    other.store.close()


def test_without_the_archive_no_history_looks_empty(world: World, redis_url: str) -> None:
    world.says()
    world.moving.move(C)
    other = RedisTurnStore(load_settings(redis_url=redis_url))
    for call in (other.history, other.summary, other.data.snapshot):
        with pytest.raises(ArchiveUnavailable, match="AGENTAPI_ARCHIVE_URL"):
            call(C)
    assert other.history("never used") == []
    other.close()


def test_without_the_archive_nobody_is_forgotten(world: World, redis_url: str) -> None:
    whose = Whose(user_id="ann")
    other = RedisTurnStore(load_settings(redis_url=redis_url))
    world.says("ann", user_id="ann")
    assert count_user(other, whose).conversations == 1
    world.says(user_id="bob")
    assert world.moving.move(C)

    def refused() -> None:
        with pytest.raises(ArchiveUnavailable, match="AGENTAPI_ARCHIVE_URL"):
            count_user(other, whose)
        with pytest.raises(ArchiveUnavailable, match="AGENTAPI_ARCHIVE_URL"):
            Forgetting(other, whose, bool, 0).run()
        assert count_user(world.store, whose).conversations == 1

    refused()
    # Its copy stays in the archive for an hour.
    assert len(world.store.history(C)) == 2
    refused()
    assert world.moving.discard(0) == 1
    assert Forgetting(other, whose, bool, 0).run().conversations == 1
    other.close()


def test_a_row_that_is_missing_loses_no_marker(world: World) -> None:
    world.says()
    world.moving.move(C)
    away = world.moving.away(C)
    assert away is not None
    copy = world.archive.get(C, away.version)
    assert copy is not None
    world.archive.delete(C, away.version)
    with pytest.raises(ArchiveLost):
        world.store.history(C)
    # The operator restores a backup.
    world.archive.put(copy)
    assert len(world.store.history(C)) == 2


def test_a_conversation_whose_row_is_missing_can_be_deleted(world: World) -> None:
    copies = []
    for name in (C, "other"):
        world.says(name, user_id="ann")
        assert world.moving.move(name)
        away = world.moving.away(name)
        assert away is not None
        copies.append(world.archive.get(name, away.version))
        world.archive.delete(name, away.version)
    waiting = world.bench.enqueue(C, user_id="ann")
    store = world.store.conversations
    # What cannot be deleted yet keeps its marker: the row may come back.
    assert store.drop(C, None, "early") == Unended(turn_ids=[waiting])
    assert world.moving.away(C) is not None
    world.store.cancel(waiting)
    assert store.drop(C, None, "op", expected=1) is None
    dropped = store.drop(C, None, "op", expected=2)
    assert isinstance(dropped, Dropped)
    assert store.drop(C, None, "op", expected=2) == dropped
    assert store.find(C, None) is None
    whose = Whose(user_id="ann")
    counted = count_user(world.store, whose)
    assert (counted.conversations, counted.messages) == (1, 0)
    forgotten = Forgetting(world.store, whose, world.store.cancel, 1).run()
    assert (forgotten.conversations, forgotten.turns, forgotten.left) == (1, 3, [])
    assert not list(world.store.data.turns(whose))
    # Rows that a backup brings back mean nothing.
    for copy in copies:
        assert copy is not None
        world.archive.put(copy)
    assert world.moving.discard(0) == 2
    assert world.archive.count().conversations == 0


async def test_the_gateway_deletes_one_whose_row_is_missing(world: World) -> None:
    world.says(tenant_id="acme")
    assert world.moving.move(C)
    world.archive.delete_of(tenant_id="acme")
    settings = world.bench.settings
    client = redis.asyncio.Redis.from_url(settings.redis_url)
    gateway = Conversations(settings, client, world.moving.bring_back)
    summary = await gateway.summary(C)
    assert summary is not None
    assert (summary.archived, summary.messages) == (True, 2)
    assert isinstance(await gateway.drop(C, "acme", "op"), Dropped)
    assert await gateway.find(C, "acme") is None
    await client.aclose()


def test_an_archive_that_is_away_is_not_asked_by_everyone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_REST", "_LONGEST_REST"):
        monkeypatch.setattr(f"agentapi.stores.redis.archiving.{name}", 600.0)
    archive = MemoryArchive()
    store = RedisTurnStore(load_settings(redis_url=redis_url, archive_after=1e-9), archive=archive)
    bench = on_redis(redis_url)
    bench.store = store
    bench.complete(bench.claim(bench.enqueue()).lease)
    assert store.archiving is not None
    assert store.archiving.move(C)
    asked = []

    def away(name: str) -> None:
        asked.append(name)
        raise ArchiveUnavailable("away")

    archive.before = away
    for _ in range(3):
        with pytest.raises(ArchiveUnavailable):
            store.history(C)
    assert asked == ["get"]
    store.close()


def test_a_memory_brings_it_back(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.says()
    world.moving.move(C)
    settings = world.store._settings
    monkeypatch.setenv("AGENTAPI_ARCHIVE_URL", settings.archive_url or "")
    memory = RedisMemory(redis_url=settings.redis_url, conversation_id=C)
    assert [message.content for message in memory.load(Window(messages=None))] == ["hi", "yo"]


def test_a_copy_that_took_too_long_is_not_used(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = MemoryArchive()
    store = RedisTurnStore(load_settings(redis_url=redis_url, archive_after=1e-9), archive=archive)
    bench = on_redis(redis_url)
    bench.store = store
    assert store.archiving is not None
    bench.complete(bench.claim(bench.enqueue(C), C).lease)

    def long(step: str) -> None:
        if step == "put":
            monkeypatch.setattr("agentapi.stores.redis.archiving.PATIENCE", 0)

    archive.before = long
    assert not store.archiving.move(C)
    assert store.archiving.away(C) is None
    store.close()


def test_a_slow_archive_holds_two_callers_and_no_more(redis_url: str) -> None:
    archive = MemoryArchive()
    store = RedisTurnStore(load_settings(redis_url=redis_url, archive_after=1e-9), archive=archive)
    bench = on_redis(redis_url)
    bench.store = store
    assert store.archiving is not None
    for conversation in "abc":
        turn_id = bench.enqueue(conversation)
        bench.complete(bench.claim(turn_id, conversation).lease)
        assert store.archiving.move(conversation)
    asked, answers = threading.Semaphore(0), threading.Event()

    def slow(name: str) -> None:
        if name == "get":
            asked.release()
            answers.wait(30)

    archive.before = slow
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(store.history, conversation) for conversation in "ab"]
        assert asked.acquire(timeout=30)
        assert asked.acquire(timeout=30)
        with pytest.raises(ArchiveUnavailable, match="slow"):
            store.history("c")
        answers.set()
        assert [len(found.result()) for found in waiting] == [2, 2]
    assert len(store.history("c")) == 2
    store.close()


def test_it_moves_out_of_a_cluster_and_back(cluster_url: str) -> None:
    archive = MemoryArchive()
    settings = load_settings(
        redis_url=cluster_url, broker_url="memory://", redis_timeout=30, archive_after=1e-9
    )
    store = RedisTurnStore(settings, archive=archive)
    moving = store.archiving
    assert moving is not None
    names = [f"user:{number}" for number in range(12)]
    for name in names:
        new = NewTurn(turn_id=create_turn_id(name), conversation_id=name, agent="a", input="hi")
        store.enqueue([new])
        claim = store.claim(
            name, new.turn_id, owner="w", token="t", window=Window(messages=None), isolated=True
        )
        assert isinstance(claim, Claim)
        store.commit(claim.lease, completed(new.turn_id))
    cold = [name for found in moving.cold() for name in found]
    assert sorted(cold) == sorted(names)
    assert all(moving.move(name) for name in cold)
    assert [name for found in moving.cold() for name in found] == []
    for name in names:
        assert [message.content for message in store.history(name)] == ["hi", "yo"]
    assert moving.discard(0) == len(names)
    assert not archive.rows
    store.close()
