"""The transitions of backups and deletions, for test_repeats.py."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from agentapi.conversation.messages import UserMessage, dumps
from agentapi.errors import ArchiveLost, StoreFault
from agentapi.ids import partition_of
from agentapi.redis.archived import AwayTurn
from agentapi.redis.keys import conversation_keys, copies_key, hooked_key, turn_keys
from agentapi.stores import RedisTurnStore, TurnQuery
from agentapi.stores.conversations import Dropped
from agentapi.stores.data import Restored, Staging, Whose
from agentapi.stores.redis.archiving import RedisArchiving
from agentapi.stores.redis.conversation_scripts import drop
from agentapi.stores.redis.conversations import RedisConversations
from agentapi.stores.redis.lists import RedisLists
from tests.conformance.stores import Bench
from tests.fakes.archive import MemoryArchive


def data_walk(bench: Bench) -> None:
    """Conversations are copied out and brought back, and a person's data deleted."""
    data, acme = bench.store.data, {"created": "1000", "tenant": "acme"}
    said = [dumps(UserMessage(content=f"message {n}")) for n in range(3)]
    first = Staging(conversation_id="brought", operation="first")
    assert data.stage(first, 0, said[:2], {"name": b"bytes"})
    assert data.stage(first, 2, said[2:])
    assert not data.stage(first, 9, said)

    def restore(staging: Staging, **more: Any) -> Restored:
        options = {"messages": 3, "digest": "digest", "replace": False, **more}
        return data.restore(staging, {**acme, **options.pop("fields", {})}, **options)

    assert restore(first) is Restored.IMPORTED
    other = Staging(conversation_id="brought", operation="other")
    assert restore(other) is Restored.KNOWN
    assert restore(other, digest="another") is Restored.EXISTS
    assert restore(other, digest="another", fields={"tenant": "evil"}) is Restored.TENANT
    assert restore(other, digest="another", replace=True) is Restored.LOST
    turn_id = bench.enqueue("brought", tenant_id="acme", user_id="anna")
    assert restore(other, digest="another", replace=True) is Restored.BUSY
    [turn] = data.turns(Whose(user_id="anna"))
    assert data.erase(turn, "early") is None
    bench.complete(bench.claim(turn_id, "brought").lease)
    assert data.stage(other, 0, said[:1])
    assert restore(other, messages=1, digest="another", replace=True) is Restored.IMPORTED
    # One store keeps the history that was replaced for the turns that refer to it.
    assert data.erase(turn, "op") in (0, 2)
    again = bench.enqueue("brought", tenant_id="acme", user_id="anna")
    bench.complete(bench.claim(again, "brought").lease)
    [turn] = data.turns(Whose(user_id="anna"))
    assert data.erase(turn, "now") == 2
    assert data.erase_copies(Whose(user_id="anna")) == 0
    assert data.erase_ends(Whose(user_id="anna")) in (0, 2)
    assert len(bench.store.history("brought")) == 1


def archive_walk(bench: Bench) -> None:
    """A conversation moves to the archive and comes back, each by all of its ways."""
    store = bench.store
    assert isinstance(store, RedisTurnStore)
    settings = bench.settings.model_copy(update={"archive_after": 1e-9})
    archive = MemoryArchive()
    moving = RedisArchiving(settings, store._client, store._scripts, archive)
    bench.complete(bench.claim(bench.enqueue("cold"), "cold").lease)
    assert not moving.move("none")
    # A turn that is accepted while the copy is made.
    archive.before = lambda name: bench.enqueue("cold") if name == "put" else None
    assert not moving.move("cold")
    archive.before = lambda name: None
    waiting: Any = store._client.lindex(conversation_keys("cold").inbox, 0)
    bench.complete(bench.claim(waiting.decode(), "cold").lease)
    assert moving.move("cold")
    away = moving.away("cold")
    assert away is not None
    keys = conversation_keys("cold")
    named = [
        keys.meta,
        keys.messages,
        copies_key(partition_of("cold")),
        *(f"{keys.messages}:import:{n}" for n in "ab"),
    ]
    assert moving._call("arrive", named, ["cold", away.version, 4]) == [b"lost"]
    moving.bring_back(away)
    assert moving._call("arrive", named, ["cold", away.version, 4]) == [b"back"]
    assert moving._call("arrive", named, ["cold", "other", 4]) == [b"elsewhere"]
    assert len(store.history("cold")) == 4
    assert moving.discard(0) == 2
    assert not archive.rows
    assert moving.move("cold")
    archive.rows.clear()
    conversations = store.conversations
    assert isinstance(conversations, RedisConversations)
    run = drop("cold", None, "lost", 4)
    dropped = conversations._run(replace(run, args=run.if_lost or ()))
    assert isinstance(dropped, Dropped)
    assert moving.away("cold") is None
    assert moving.discard(0) == 1


def turns_walk(bench: Bench) -> None:
    """Turns move to the archive and come back, each by all of its ways."""
    store, archive = bench.store, MemoryArchive()
    assert isinstance(store, RedisTurnStore)
    given = {"archive_turns_after": 0.001, "turn_limit": 768, "list_limit": 0}
    settings = bench.settings.model_copy(update=given)
    moving = RedisArchiving(settings, store._client, store._scripts, archive)
    place = (partition_of("ended"), "completed")
    store._client.delete(hooked_key(place[0], "a"))

    def says() -> str:
        turn_id = bench.enqueue("ended")
        bench.complete(bench.claim(turn_id, "ended").lease)
        store._client.delete(turn_keys(turn_id).events)
        return turn_id

    def move() -> int:
        began = time.monotonic()
        return sum(moving.turns._move(moving.turns._pack([place])[place].turns, began).values())

    first, second = says(), says()
    now = round(store.turn(second).created_at * 1000)

    def comes_back(turn_id: str, asked: int = now) -> None:
        moving.bring_back(AwayTurn(turn_id=turn_id, asked=asked))

    # One is changed while the copies are made.
    change = ("ended", first, {"a": "b"}, "changed")
    archive.before = lambda name: (
        store.conversations.relabel(*change) if name == "put_turns" else None
    )
    assert move() == 1
    archive.before = lambda name: None
    assert moving.discard(0) == 1
    assert move() == 1
    comes_back(first, now - 300_001)
    for turn_id in (first, second):
        with pytest.raises(StoreFault, match="ARCHIVED TURN"):
            store.turn(turn_id)
        comes_back(turn_id)
        assert store.turn(turn_id).text == "yo"
    comes_back(first)
    comes_back(bench.enqueue("none"))
    third, fourth = says(), says()
    assert move() == 2
    lists = RedisLists(bench.settings, store._client, store._scripts, moving.turns)
    listed = lists.turns(TurnQuery(conversation_id="ended"), 1000).items
    assert {third, fourth} <= {turn.turn_id for turn in listed}
    lists.close()
    assert moving.turns.expel() == 1
    comes_back(third)
    fifth = says()
    assert move() == 1
    [copy] = archive.turns_of([fifth])
    archive.turns[fifth, copy.version] = replace(copy, expires=1)
    assert moving.turns.expire() == 1
    comes_back(fifth)
    archive.turns.clear()
    with pytest.raises(ArchiveLost):
        comes_back(fourth)
