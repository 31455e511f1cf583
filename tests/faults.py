"""Faults of a stack, such as kills, pauses and restarts, and checks of its turns."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import redis

from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Child, Stack, start_valkey


def until(condition: Callable[[], object], timeout: float = 150.0, what: str = "it") -> float:
    """Wait until a condition is true; returns the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout, f"{what} did not happen in {timeout:g} s"
        time.sleep(0.02)
    return time.monotonic() - begun


def assert_all_came_true(orchestrator: Orchestrator, handles: Sequence[TurnHandle]) -> None:
    """Assert that each turn completed once, in the order of acceptance."""
    for handle in handles:
        handle.result(timeout=150)
    for conversation in {handle.conversation_id for handle in handles}:
        history = orchestrator.history(conversation)
        said = [message["turn_id"] for message in history if message["role"] == "user"]
        assert said == [h.turn_id for h in handles if h.conversation_id == conversation]


def worker_of(stack: Stack, owner: str | None) -> Child:
    """The process of a worker."""
    assert owner is not None
    return next(worker for worker in stack.workers if owner.startswith(f"{worker.name}@"))


def watchdogs(worker: Child) -> list[int]:
    """Process id of a worker's watchdog, and those of the turns that it isolates."""
    worker_process = psutil.Process(worker.pid)
    command = worker_process.cmdline()
    return [
        process.pid
        for child in worker_process.children()
        if child.cmdline() == command
        for process in (child, *child.children())
    ]


def kill(stack: Stack, worker: Child, *, machine: bool = False) -> None:
    """Kill a worker with SIGKILL; together with its watchdog, as if the machine died."""
    if machine:
        for pid in watchdogs(worker):
            os.kill(pid, signal.SIGKILL)
    worker.kill()
    stack.workers.remove(worker)


def port_of(stack: Stack) -> int:
    return int(stack.redis_url.rpartition(":")[2].partition("/")[0])


@contextmanager
def redis_down(stack: Stack, *, hard: bool = False) -> Iterator[None]:
    """Stop or kill Redis during the block, and restart it on its file and port afterwards."""
    assert stack.valkey is not None
    if hard:
        stack.valkey.kill()
    else:
        stack.valkey.stop()
    yield
    stack.valkey, _ = start_valkey(Path(stack.folder), port_of(stack))


@contextmanager
def paused(child: Child) -> Iterator[None]:
    """Pause a process during the block with SIGSTOP."""
    child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.signal(signal.SIGCONT)


def a_minute_passes(url: str) -> None:
    """Move the state of providers and of parked turns a minute into the past."""
    client: Any = redis.Redis.from_url(url)
    now = client.time()[0] * 1000
    for key in client.scan_iter(match="agentapi:provider:*:times"):
        for name, at in client.zrange(key, 0, -1, withscores=True):
            client.zadd(key, {name: at - 61_000}, xx=True)
    for key in client.scan_iter(match="agentapi:provider:*:state"):
        for name in client.hkeys(key):
            if name in (b"hold", b"open", b"probe_until"):
                client.hincrby(key, name, -61_000)
    for key in client.scan_iter(match="agentapi:*:t:*", _type="hash"):
        status, conversation = client.hmget(key, "status", "conversation")
        if status == b"parked":
            client.hset(key, "wake", now)
            client.zadd(key.partition(b":t:")[0] + b":due", {conversation: now})
    client.close()


def flush_broker(url: str) -> int:
    """Delete Celery's data in Redis; returns the number of deleted keys."""
    client = redis.Redis.from_url(url)
    keys = list(client.scan_iter(match="agentapi:broker:*", count=1000))
    deleted = int(client.delete(*keys)) if keys else 0
    client.close()
    return deleted
