"""Conversations leave Redis by themselves and come back, whoever dies meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from agentapi.archive.sql import SqlArchive
from agentapi.ids import PARTITIONS
from agentapi.redis.keys import ELECTION_KEY, copies_key
from agentapi.stores import RedisTurnStore
from orchestrator import Orchestrator
from orchestrator.stack import Stack
from tests.faults import kill, until, worker_of

CONVERSATIONS = [f"user:{number}" for number in range(60)]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(
        tmp_path,
        agents=("tests.acceptance.agents",),
        workers=2,
        flower=False,
        heartbeat=0.5,
        dispatch_grace=1,
        archive_url=f"sqlite:///{tmp_path / 'archive.db'}",
        archive_after=2,
    ) as running:
        yield running


def test_conversations_move_and_come_back_although_the_mover_is_killed(stack: Stack) -> None:
    settings = stack.settings
    archive = SqlArchive(settings.archive_url or "")
    with (
        Orchestrator(settings) as orchestrator,
        closing(RedisTurnStore(settings)) as store,
        redis.Redis.from_url(stack.redis_url) as client,
    ):
        moving = store.archiving
        assert moving is not None
        moving.ready()
        asked = [
            orchestrator.enqueue("tools", f"I am {c}", conversation_id=c) for c in CONVERSATIONS
        ]
        said = [turn.result(timeout=150).text for turn in asked]
        until(lambda: archive.count().conversations >= 3, what="the first move")
        kill(stack, worker_of(stack, elected(client)))
        until(
            lambda: all(moving.away(c) is not None for c in CONVERSATIONS), what="the other moves"
        )
        # A second turn each: it finds the first one.
        again = [orchestrator.enqueue("tools", "Again", conversation_id=c) for c in CONVERSATIONS]
        for turn in again:
            turn.result(timeout=150)
        for conversation, text in zip(CONVERSATIONS, said, strict=True):
            history = [message.content for message in store.history(conversation)]
            assert history[:2] == [f"I am {conversation}", text]
            assert len(history) == 4
        # All of them go again. The archive has each once, but for older copies, which are noted.
        until(lambda: all(moving.away(c) is not None for c in CONVERSATIONS), what="all moves")
        versions = {c: found.version for c in CONVERSATIONS if (found := moving.away(c))}
        rows = archive.page(limit=1000)
        whole = [row for row in rows if row.version == versions[row.conversation_id]]
        assert [row.messages for row in whole] == [4] * len(CONVERSATIONS)
        older = {f"{row.version}:{row.conversation_id}" for row in rows if row not in whole}
        assert older <= noted(client)
    archive.close()


def elected(client: redis.Redis) -> str:
    """The worker that leads."""
    found: list[str] = []

    def one() -> bool:
        leader: Any = client.get(ELECTION_KEY)
        found[:] = [leader.decode().partition("/")[0]] if leader else []
        return bool(found)

    until(one, what="an election")
    return found[0]


def noted(client: redis.Redis) -> set[str]:
    """Copies that mean nothing now, or that nobody has finished."""
    found: set[str] = set()
    for partition in range(PARTITIONS):
        entries: Any = client.zrange(copies_key(partition), 0, -1)
        found |= {entry.decode().partition(":")[2] for entry in entries}
    return found
