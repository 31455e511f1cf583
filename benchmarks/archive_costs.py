"""Measures a conversation's cost in the archive: ``python -m benchmarks.archive_costs``."""

from __future__ import annotations

import secrets
import tempfile
import uuid
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

import redis
from rich import print

from agentapi import load_settings
from agentapi.conversation.messages import AssistantMessage, UserMessage, dumps
from agentapi.ids import create_turn_id, partition_of
from agentapi.stores import RedisTurnStore
from agentapi.stores.data import Staging
from benchmarks.archive import ended
from orchestrator.stack import start_valkey
from tools.postgres import postgres

MANY: Final = 40
BYTES: Final = 500
"""Bytes of a message as JSON."""


def archive_costs(conversations: int = 500) -> dict[str, float]:
    """Move short and long conversations and turns to PostgreSQL; returns costs named as in `Costs`.

    Args:
        conversations: Number of conversations of each kind, and of turns.
    """
    with tempfile.TemporaryDirectory(prefix="archive-") as folder:
        valkey, url = start_valkey(Path(folder))
        try:
            with postgres() as server:
                few = _moved(url, server.fresh(), conversations, 1)
                many = _moved(url, server.fresh(), conversations, MANY)
                turns = _moved_turns(url, server.fresh(), conversations)
        finally:
            valkey.stop()
    message = (many["size"] - few["size"]) / (MANY - 1)
    return {
        "archive_marker_bytes": round(many["marker"]),
        "archive_conversation_bytes": round(few["size"] - message),
        "archive_message_overhead_bytes": round(message - BYTES, 1),
        "archive_turn_marker_bytes": round(turns["marker"]),
        "archive_turn_bytes": round(turns["size"] - 2 * BYTES),
    }


def _moved(redis_url: str, database: str, count: int, messages: int) -> dict[str, float]:
    """Bytes in the database and in Redis for a conversation."""
    settings = load_settings(
        redis_url=redis_url, archive_url=f"postgresql://{database}", archive_after=1e-9
    )
    with (
        closing(redis.Redis.from_url(redis_url)) as client,
        closing(RedisTurnStore(settings)) as store,
    ):
        client.flushall()
        names = [str(uuid.uuid4()) for _ in range(count)]
        for name in names:
            _fill(store, name, messages)
        moving = store.archiving
        assert moving is not None
        archive: Any = moving.ready()
        empty = archive.status().size
        for name in names:
            assert moving.move(name)
        keys: Any = client.keys("agentapi:*:c:*:meta")
        marker = sum(int(client.memory_usage(key) or 0) for key in keys) / count
        size = (archive.status().size - empty) / count
    return {"size": size, "marker": marker}


def _moved_turns(redis_url: str, database: str, turns: int) -> dict[str, float]:
    """Bytes in the database and in Redis for a turn of two messages."""
    settings = load_settings(
        redis_url=redis_url,
        archive_url=f"postgresql://{database}",
        archive_turns_after=0.001,
        events_retention=0.001,
    )
    with (
        closing(redis.Redis.from_url(redis_url)) as client,
        closing(RedisTurnStore(settings)) as store,
    ):
        client.flushall()
        # In one list, because Redis stores short lists differently.
        names = (name for name in map("user:{}".format, count()) if partition_of(name) == 0)
        for name in islice(names, turns):
            turn_id = create_turn_id(name)
            empty = [
                len(dumps(kind(content="", turn_id=turn_id)))
                for kind in (UserMessage, AssistantMessage)
            ]
            ended(store, name, *(secrets.token_urlsafe(BYTES)[: BYTES - each] for each in empty))
        moving = store.archiving
        assert moving is not None
        archive: Any = moving.ready()
        empty_size, moved = archive.status().size, 0
        while moved < turns:
            moving.turns.begin()
            moved += moving.turns.move_some([0])[0]
        keys: Any = client.keys("agentapi:*:list:moved:*")
        marker = sum(int(client.memory_usage(key, samples=0) or 0) for key in keys) / turns
        return {"size": (archive.status().size - empty_size) / turns, "marker": marker}


def _fill(store: RedisTurnStore, name: str, messages: int) -> None:
    staging = Staging(conversation_id=name, operation=uuid.uuid4().hex)
    said = []
    for _ in range(messages):
        turn_id = create_turn_id(name)
        empty = len(dumps(UserMessage(content="", turn_id=turn_id)))
        text = secrets.token_urlsafe(BYTES)[: BYTES - empty]
        said.append(dumps(UserMessage(content=text, turn_id=turn_id)))
    store.data.stage(staging, 0, said)
    fields = {"created": "1000", "updated": "1000", "user": "u:42", "tenant": "t", "agent": "a"}
    counts = {"turns": "20", "steps": "20", "tokens": "9000", "cost": "0.12"}
    store.data.restore(staging, {**fields, **counts}, messages=messages, digest="", replace=False)


if __name__ == "__main__":
    print(archive_costs())
