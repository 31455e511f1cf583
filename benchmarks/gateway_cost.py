"""Compares the cost of a turn over HTTP with one that a producer enqueues directly."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import httpx2
import redis

from benchmarks.contest import Servers
from benchmarks.processes import server_cpu, usage
from benchmarks.results import Metric, Results
from orchestrator import Orchestrator
from orchestrator.stack import Stack

CASE: Final = "gateway"
PYTHON: Final = "enqueue and result in Python"
AGENT: Final = "plain"
TEXT: Final = "hello"

BATCH: Final = 50
"""Turns of one kind in a round. The kinds alternate, so that changes of the machine affect all of
them; the median of many rounds shows differences smaller than the noise of one round."""

_MS: Final = 1000


def cost(results: Results, servers: Servers, *, turns: int) -> None:
    """Run turns of each kind with one client, one after the other.

    Args:
        results: Receives turns per second, and a turn's processor time by process.
        servers: The servers, with the Valkey that is used.
        turns: Number of turns of each kind.
    """
    server = redis.Redis.from_url(servers.redis_url)
    server.flushall()
    stack = Stack(
        servers.folder,
        agents=("benchmarks.agents",),
        workers=1,
        flower=False,
        gateway=True,
        redis_url=servers.redis_url,
        gateway_requests_per_minute=0,
        gateway_turns_in_flight=0,
        log_level="WARNING",
    )
    with stack, ExitStack() as open_:
        producer = open_.enter_context(Orchestrator(stack.settings))
        client = open_.enter_context(httpx2.Client(base_url=stack.gateway_url or "", timeout=60))
        kinds = _kinds(producer, client)
        for number in range(-1, max(1, turns // BATCH)):
            names = list(kinds)
            for name in reversed(names) if number % 2 else names:
                seconds, spent = _batch(stack, server, kinds[name])
                # The first round is a warm-up.
                if number >= 0:
                    _add(results, name, seconds, spent)
    server.close()


def _kinds(producer: Orchestrator, client: httpx2.Client) -> dict[str, Callable[[], object]]:
    chat = {"model": AGENT, "messages": [{"role": "user", "content": TEXT}]}

    def post(path: str, body: dict[str, Any]) -> httpx2.Response:
        return client.post(path, json=body).raise_for_status()

    def streamed() -> None:
        with client.stream("POST", "/v1/chat/completions", json={**chat, "stream": True}) as answer:
            assert answer.read().endswith(b"data: [DONE]\n\n")

    def native() -> None:
        body = {"agent": AGENT, "message": TEXT}
        made = post(f"/conversations/{uuid.uuid4().hex}/turns", body).json()
        client.get(f"/turns/{made['turn_id']}/events").raise_for_status()

    return {
        PYTHON: lambda: producer.enqueue(AGENT, TEXT).result(60),
        "/v1/responses": lambda: post("/v1/responses", {"model": AGENT, "input": TEXT}),
        "/v1/chat/completions": lambda: post("/v1/chat/completions", chat),
        "/v1/chat/completions, streamed": streamed,
        "/conversations/{id}/turns, and its events": native,
    }


def _batch(
    stack: Stack, server: redis.Redis, turn: Callable[[], object]
) -> tuple[float, dict[str, float]]:
    """Run turns; returns their seconds, and their processor time by process."""
    before, began = _spent(stack, server), time.perf_counter()
    for _ in range(BATCH):
        turn()
    seconds, after = time.perf_counter() - began, _spent(stack, server)
    return seconds, {name: after[name] - before[name] for name in after}


def _spent(stack: Stack, server: redis.Redis) -> dict[str, float]:
    """Seconds of processor time used so far."""
    return {
        "the producer, or gateway": time.process_time(),
        "gateway": usage([stack.gateway.pid]).cpu if stack.gateway else 0.0,
        "the worker": usage([worker.pid for worker in stack.workers]).cpu,
        "Valkey": server_cpu(server),
    }


def _add(results: Results, name: str, seconds: float, spent: dict[str, float]) -> None:
    speed = Metric(case=CASE, name="turns one after the other", unit="1/s", base=PYTHON)
    results.add(speed, name, BATCH / seconds)
    gateway = spent.pop("gateway")
    if name != PYTHON:
        # Over HTTP, this process does only the work of a client.
        spent["the producer, or gateway"] = gateway
    for process, used in spent.items():
        metric = Metric(
            case=CASE, name=f"processor time of {process}, a turn", unit="ms", base=PYTHON
        )
        results.add(metric, name, used / BATCH * _MS)
