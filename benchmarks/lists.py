"""Measures what lists add to the cost of a turn, and how fast lists are."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import redis

from agentapi import Agent, load_settings
from agentapi.ids import PARTITIONS
from agentapi.redis.keys import conversations_prefix, list_keys, turns_prefix
from agentapi.stores import ConversationQuery, Paged, RedisTurnStore, TurnQuery
from agentapi.turns import TurnStatus
from benchmarks.contest import Servers
from benchmarks.processes import server_cpu
from benchmarks.results import Metric, Results
from orchestrator import Orchestrator
from tests.lua import PACK, with_functions
from workers.app import create_app

WITHOUT: Final = "no lists"
WITH: Final = "lists"
COST: Final = Metric(
    case="lists", name="processor time of a turn, Redis included", unit="ms", base=WITHOUT
)
BATCH: Final = 25
"""Turns in one block. Blocks with lists alternate with blocks without, so that changes of the
machine affect both; the median of many pairs shows differences smaller than the noise of one
pair."""


class _Side:
    """A producer and a worker in this process, with or without lists."""

    def __init__(self, servers: Servers, list_limit: int) -> None:
        settings = load_settings(
            redis_url=servers.redis_url, list_limit=list_limit, watchdog=False, log_level="ERROR"
        )
        self._app = create_app(settings, [Agent(name="plain", provider="offline")])
        self._app.runtime.start("bench")
        self._producer = Orchestrator(settings)
        self.seconds: list[float] = []

    def run(self, turns: int, server: redis.Redis) -> None:
        """Run turns, and record the processor time of each."""
        began = time.process_time() + server_cpu(server)
        for number in range(turns):
            turn = self._producer.enqueue("plain", "hi", conversation_id=f"c-{number}")
            self._app.runtime.execute(turn.conversation_id, turn.turn_id, "plain")
        self.seconds.append((time.process_time() + server_cpu(server) - began) / turns)

    def close(self) -> None:
        self._producer.close()
        self._app.runtime.stop()


def cost(results: Results, servers: Servers, *, turns: int) -> None:
    """Compare turns with and without lists, in many short pairs."""
    server = redis.Redis.from_url(servers.redis_url)
    server.flushall()
    sides = {WITHOUT: _Side(servers, 0), WITH: _Side(servers, 1_000_000)}
    try:
        for side in sides.values():
            side.run(BATCH, server)
            side.seconds.clear()
        for number in range(max(1, turns // BATCH)):
            pair = list(sides.values())
            for side in pair if number % 2 else reversed(pair):
                side.run(min(BATCH, turns), server)
        for who, side in sides.items():
            for seconds in side.seconds:
                results.add(COST, who, seconds * 1000)
    finally:
        for side in sides.values():
            side.close()
        server.close()


def pages(results: Results, servers: Servers, *, turns: int, conversations: int) -> None:
    """Measure pages of 100 entries from lists of many turns and conversations."""
    server = redis.Redis.from_url(servers.redis_url)
    server.flushall()
    fill(server, turns=turns, conversations=conversations)
    store = RedisTurnStore(load_settings(redis_url=servers.redis_url))
    lists = store.lists
    failed = frozenset({TurnStatus.FAILED})
    cases = {
        "turns": partial(lists.turns, TurnQuery()),
        "turns that failed": partial(lists.turns, TurnQuery(statuses=failed)),
        "turns with an error's text": partial(
            lists.turns, TurnQuery(statuses=failed, error="number 7 ")
        ),
        "turns of one user in a hundred": partial(lists.turns, TurnQuery(user_id="u-7")),
        "turns of nobody": partial(lists.turns, TurnQuery(user_id="nobody")),
        "conversations": partial(lists.conversations, ConversationQuery()),
        "conversations of one user in a hundred": partial(
            lists.conversations, ConversationQuery(user_id="u-7")
        ),
    }
    case = f"a page of 100 among {turns:,} turns and {conversations:,} conversations"
    metric = Metric(case=case, name="slowest of ten", unit="ms")
    for who, read in cases.items():
        results.add(metric, who, max(_ten(read)) * 1000)
    store.close()
    server.close()


def _ten(read: Any) -> Sequence[float]:
    """Read up to ten consecutive pages; returns the seconds of each."""
    found: list[float] = []
    cursor: str | None = None
    for _ in range(10):
        began = time.perf_counter()
        page: Paged[Any] = read(100, cursor)
        found.append(time.perf_counter() - began)
        cursor = page.cursor
        if cursor is None:
            break
    return found


def fill(server: redis.Redis, *, turns: int, conversations: int) -> None:
    """Store ended turns as the scripts would leave them; one in ten has failed."""
    chance = random.Random(7)
    now = round(time.time() * 1000)
    pipeline: Any = server.pipeline(transaction=False)
    pack = server.register_script(with_functions(PACK))
    for number in range(max(turns, conversations)):
        partition, at = chance.randrange(PARTITIONS), now - chance.randrange(86_400_000)
        user, conversation = f"u-{number % 100}", f"c-{number}"
        if number < turns:
            turn_id = f"{partition:03d}-{number:032x}"
            status = "failed" if number % 10 == 0 else "completed"
            fields: dict[str, Any] = {
                "v": 1,
                "kind": "agent",
                "conversation": conversation,
                "agent": "plain",
                "input": "hi",
                "user": user,
                "tenant": "",
                "status": status,
                "attempt": 1,
                "created": at,
                "started": at,
                "ended": at,
                "steps": 1,
            }
            if status == "failed":
                message = f"error number {number % 50} of many"
                fields["outcome"] = f'{{"error": {{"code": "broken", "message": "{message}"}}}}'
                pipeline.hset(f"{turns_prefix(partition)}{turn_id}", mapping=fields)
            else:
                for name in ("v", "kind", "input"):
                    del fields[name]
                fields |= {
                    "events": 2,
                    "committed": f"{number:016x}",
                    "at": "0:0:2",
                    "usage": "12,9,0,0",
                    "size": 2,
                    "worker": "w@here",
                    "log": '[1,"c",1,"w@here","first",1,1]\n[9,"m",7,"offline",12,9,0,0.0,"",0,1]',
                }
                flat = [part for pair in fields.items() for part in pair]
                pack([f"{turns_prefix(partition)}{turn_id}"], flat, client=pipeline)
            pipeline.zadd(list_keys(partition, [status])[0], {turn_id: at})
        if number < conversations:
            meta = {"created": at, "updated": at, "user": user, "tenant": "", "agent": "plain"}
            key = f"{conversations_prefix(partition)}{conversation}:meta"
            pipeline.hset(key, mapping=meta)
            pipeline.zadd(list_keys(partition, ["conversations"])[0], {conversation: at})
        if number % 1000 == 0:
            pipeline.execute()
    pipeline.execute()
