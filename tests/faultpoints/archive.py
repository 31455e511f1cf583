"""The archive of a cell, read as docs/guides/archive-sql.md describes it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from functools import partialmethod
from pathlib import Path
from typing import Any, Final

from tests.chaos.checker import conversation_key

AFTER: Final = 0.3
"""Seconds after which a conversation is cold."""


def copies_key(conversation: str) -> str:
    """The key of what is noted of copies in a conversation's partition."""
    return conversation_key(conversation, "").rpartition(":c:")[0] + ":copies"


def version_of(client: Any, conversation: str) -> str | None:
    """The copy that has a conversation's content; None while the content is in Redis."""
    marker: str | None = client.hget(conversation_key(conversation, "meta"), "archived")
    return marker.partition(" ")[0] if marker else None


def at_rest(client: Any, conversation: str) -> bool:
    """Whether nothing of a conversation is in Redis but a marker, and no copy is to be deleted."""
    if client.exists(copies_key(conversation)):
        return False
    history = conversation_key(conversation, "messages")
    # A turn that failed may have left no history.
    return version_of(client, conversation) is not None or not client.exists(history)


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
            "AGENTAPI_ARCHIVE_TURNS_AFTER": "0",
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

    def _read(self, query: str, *values: str) -> list[Any]:
        if not self._path.exists():
            return []
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            return connection.execute(query, values).fetchall()


def hurry() -> None:
    """In a worker: rest less than it would, and keep copies less long."""
    from agentapi.stores.redis import archiving
    from workers.upkeep import archivist

    for module, name, seconds in (
        (archivist, "STEP", 0.05),
        (archivist, "AWAY_REST", 0.1),
        (archiving, "PATIENCE", 3.0),
    ):
        assert hasattr(module, name)
        setattr(module, name, seconds)
    archiving.RedisArchiving.discard = partialmethod(  # type: ignore[assignment,method-assign]
        archiving.RedisArchiving.discard, 0.2
    )
