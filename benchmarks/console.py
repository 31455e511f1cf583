"""Measures how fast the console's pages are with many turns and conversations."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import quote

import httpx2
import redis

from benchmarks.contest import Servers
from benchmarks.lists import fill
from benchmarks.results import Metric, Results
from orchestrator import Orchestrator
from orchestrator.stack import Stack

NAME: Final = "slowest of ten"
REQUESTS: Final = 10


def case_of(turns: int, conversations: int) -> str:
    """The name of the case."""
    return f"the console's pages among {turns:,} turns and {conversations:,} conversations"


def pages(results: Results, servers: Servers, *, turns: int, conversations: int) -> None:
    """Request each page ten times, one after the other, as a browser does.

    Args:
        results: Receives the milliseconds of the slowest answer for each page.
        servers: The servers whose Redis is emptied and filled.
        turns: Number of ended turns in the lists.
        conversations: Number of conversations in the lists.
    """
    server = redis.Redis.from_url(servers.redis_url)
    server.flushall()
    fill(server, turns=turns, conversations=conversations)
    server.close()
    metric = Metric(case=case_of(turns, conversations), name=NAME, unit="ms")
    with (
        Stack(
            servers.folder / "console",
            agents=("examples.agents",),
            workers=1,
            flower=False,
            gateway=True,
            redis_url=servers.redis_url,
            gateway_requests_per_minute=0,
        ) as stack,
        Orchestrator(stack.settings) as orchestrator,
        httpx2.Client(base_url=stack.gateway_url or "", timeout=60) as client,
    ):
        for name, path in _paths(orchestrator).items():
            # Warm up: templates are read and scripts are loaded.
            _ask(client, path)
            found = [_ask(client, path) for _ in range(REQUESTS)]
            results.add(metric, name, max(found) * 1000)


def _paths(orchestrator: Orchestrator) -> dict[str, str]:
    """The paths of the pages, including a conversation with several messages and a turn with
    tools."""
    conversation = "bench:console"
    for number in range(40):
        orchestrator.enqueue("support", f"Message {number}.", conversation_id=conversation)
    turn = orchestrator.enqueue(
        "support", '/lookup_order {"order_id": "7"}', conversation_id=conversation, stream=True
    )
    orchestrator.enqueue("support", '/refund {"order_id": "7", "amount": 80}')
    turn.result(timeout=120)
    address = f"/console/conversation?id={quote(conversation, safe='')}"
    return {
        "fleet": "/console",
        "turns": "/console/turns",
        "turns that failed": "/console/turns?status=failed",
        "turns with an error's text": "/console/turns?status=failed&error=number+7+",
        "turns of one user in a hundred": "/console/turns?user=u-7",
        "conversations": "/console/conversations",
        "conversations of one user in a hundred": "/console/conversations?user=u-7",
        "approvals": "/console/approvals",
        "a conversation of 41 turns": address,
        "a turn": f"/console/turns/{turn.turn_id}",
    }


def _ask(client: httpx2.Client, path: str) -> float:
    """The seconds until the whole page arrived."""
    began = time.perf_counter()
    client.get(path).raise_for_status()
    return time.perf_counter() - began
