"""The archive of a cell, read as docs/guides/archive-sql.md describes it, and what moves there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from functools import partial, partialmethod
from pathlib import Path
from typing import Any, Final, cast

import redis

from tests.chaos.checker import conversation_key, turn_key
from tests.faultpoints.injector import one_point

AFTER: Final = 0.1
"""Seconds after which a conversation is cold."""

LIMIT: Final = 2
"""Completed turns of a partition that are kept, in Redis and in the archive together."""

_PARTITIONS: Final = 256

MOVING: Final = "faults:moving"
"""A key: a partition whose turns may move; "" while nothing may. Without it, conversations may."""

_LOOKS: Final = 0.03
"""Seconds between two looks at it."""


def _list_key(conversation: str, name: str) -> str:
    return conversation_key(conversation, "").rpartition(":c:")[0] + f":list:{name}"


def copies_key(conversation: str) -> str:
    """The key of what is noted of copies in a conversation's partition."""
    return conversation_key(conversation, "").rpartition(":c:")[0] + ":copies"


def aside_key(turn: str) -> str:
    """The key of a turn's events whose time has ended, for the witness."""
    return f"{turn_key(turn)}:events:aside"


def version_of(client: Any, conversation: str) -> str | None:
    """The copy that has a conversation's content; None while the content is in Redis."""
    marker: str | None = client.hget(conversation_key(conversation, "meta"), "archived")
    return marker.partition(" ")[0] if marker else None


class Moves:
    """What moves in a scenario, and when: the scenario says so, and the archivists obey.

    A point of theirs is then first passed when there is something to move.
    """

    def __init__(self, url: str, conversation: str) -> None:
        self._client: Any = redis.Redis.from_url(url, decode_responses=True)
        self._conversation = conversation
        self.nothing()

    def close(self) -> None:
        self._client.close()

    def nothing(self) -> None:
        """Nothing moves."""
        self._client.set(MOVING, "")

    def conversations(self) -> None:
        """Conversations move that are cold."""
        self._client.delete(MOVING)

    def turns(self, turn: str) -> None:
        """Turns of the conversation move that have ended and have no events; this one has none any
        more."""
        events = f"{turn_key(turn)}:events"
        if self._client.exists(events):
            self._client.rename(events, aside_key(turn))
        self._client.set(MOVING, int(turn[:3]))

    def at_rest(self) -> bool:
        """Whether nothing of the conversation is in Redis but a marker, and no copy of it or its
        turns is to be deleted."""
        if self._client.exists(copies_key(self._conversation)):
            return False
        history = conversation_key(self._conversation, "messages")
        # A turn that failed may have left no history.
        moved = version_of(self._client, self._conversation) is not None
        return moved or not self._client.exists(history)

    def settled(self, turn: str) -> bool:
        """Whether a turn has moved, or stays since it failed or came back; and no turn that has
        moved is more than are kept."""
        status, returned = self._client.hmget(turn_key(turn), "status", "returned")
        if not (status in (None, "failed") or returned):
            return False
        here, away = (
            self._client.zcard(_list_key(self._conversation, name))
            for name in ("completed", "moved:completed")
        )
        return not away or here + away <= LIMIT

    def expelled(self, turns: Sequence[str]) -> list[str]:
        """Those that are neither in Redis nor in the archive."""
        moved = _list_key(self._conversation, "moved:completed")
        return [
            turn
            for turn in turns
            if not self._client.exists(turn_key(turn)) and self._client.zscore(moved, turn) is None
        ]


class ArchiveFile:
    """An SQLite file; it may not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def env(self) -> dict[str, str]:
        """Settings of processes that use it."""
        return {
            "AGENTAPI_ARCHIVE_URL": f"sqlite:///{self._path}",
            "AGENTAPI_ARCHIVE_AFTER": str(AFTER),
            # As soon as their events have gone.
            "AGENTAPI_ARCHIVE_TURNS_AFTER": "0.001",
            "AGENTAPI_TURN_LIMIT": str(LIMIT * _PARTITIONS),
            "AGENTAPI_LIST_LIMIT": str(LIMIT * _PARTITIONS),
        }

    def messages(self, conversation: str, version: str) -> list[dict[str, Any]]:
        """The messages of a copy."""
        found = self._read(
            "SELECT body FROM archived_messages JOIN archived_conversations USING (copy_id) "
            "WHERE conversation_id = ? AND version = ? ORDER BY position",
            *(conversation, version),
        )
        return [json.loads(body) for (body,) in found]

    def versions(self, conversation: str) -> list[str]:
        """The copies of a conversation."""
        query = "SELECT version FROM archived_conversations WHERE conversation_id = ?"
        return [version for (version,) in self._read(query, conversation)]

    def turns(self, turn: str) -> list[dict[str, str]]:
        """The copies of a turn's record, the oldest first."""
        query = "SELECT fields FROM archived_turns WHERE turn_id = ? ORDER BY version"
        return [json.loads(fields) for (fields,) in self._read(query, turn)]

    def _read(self, query: str, *values: str) -> list[Any]:
        if not self._path.exists():
            return []
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            return connection.execute(query, values).fetchall()


def hurry() -> None:
    """In a worker: rest less than it would, keep copies less long, and move what `Moves` says."""
    from agentapi.stores.redis import archiving, turn_archiving
    from workers.upkeep import archivist

    for module, name, seconds in (
        (archivist, "STEP", 0.05),
        (archivist, "AWAY_REST", 0.1),
        (archivist, "TURNS_AGAIN", 0.2),
        (archiving, "PATIENCE", 1.5),
        (turn_archiving, "PATIENCE", 1.5),
    ):
        assert hasattr(module, name)
        setattr(module, name, seconds)
    archiving.RedisArchiving.discard = partialmethod(  # type: ignore[assignment,method-assign]
        archiving.RedisArchiving.discard, 0.1
    )
    _obey()


def _obey() -> None:
    from workers.upkeep.archivist import Archivist, ConversationArchivist, TurnArchivist

    move_conversations, move_turns = ConversationArchivist.step, TurnArchivist.step

    def may_move(archivist: Archivist) -> bytes | None:
        with one_point():
            found = archivist._archiving._client.get(MOVING)
        return cast("bytes | None", found)

    def conversations(archivist: ConversationArchivist) -> float:
        return _LOOKS if may_move(archivist) is not None else move_conversations(archivist)

    def turns(archivist: TurnArchivist) -> float:
        partition = may_move(archivist)
        if not partition:
            return _LOOKS
        # A look at all partitions takes much of the machine.
        moving: Any = archivist._archiving.turns
        moving.move_some = partial(type(moving).move_some, moving, [int(partition)])
        return move_turns(archivist)

    ConversationArchivist.step = conversations  # type: ignore[assignment,method-assign]
    TurnArchivist.step = turns  # type: ignore[assignment,method-assign]
