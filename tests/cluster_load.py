"""A stack on a cluster, a load of turns, and checks of their results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from agentapi.errors import StoreUnavailable
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Stack, start_valkey
from orchestrator.stack.cluster import Cluster, Node, wait_until
from tests.faults import assert_all_came_true

MESSAGE = '/count_up {"seconds": 0.2}'
CONVERSATIONS = 20


@contextmanager
def stack_on(nodes: Cluster, folder: Path, **settings: Any) -> Iterator[Stack]:
    """Two workers and a gateway on a cluster, with their own broker."""
    broker, broker_url = start_valkey(folder / "broker")
    try:
        with Stack(
            folder,
            agents=("tests.acceptance.agents",),
            workers=2,
            flower=False,
            gateway=True,
            redis_url=nodes.url,
            broker_url=broker_url,
            redis_wait_replicas=1,
            lease_ttl=3,
            heartbeat=1,
            dispatch_grace=1,
            **settings,
        ) as running:
            yield running
    finally:
        broker.stop()


def another(nodes: Cluster, node: Node) -> Node:
    """A primary other than the given one."""
    return next(other for other in nodes.primaries() if other.id != node.id)


class Load:
    """Enqueues turns until stopped, and retries like a patient client."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._stop = threading.Event()
        self.handles: list[TurnHandle] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            number = len(self.handles)
            while True:
                try:
                    handle = self._orchestrator.enqueue(
                        "tools",
                        MESSAGE,
                        conversation_id=f"c:{number % CONVERSATIONS}",
                        idempotency_key=f"key:{number}",
                    )
                except StoreUnavailable:
                    if self._stop.wait(0.1):
                        return
                else:
                    break
            self.handles.append(handle)

    def more(self, turns: int) -> None:
        """Wait until some more turns are accepted."""
        wanted = len(self.handles) + turns
        wait_until(lambda: len(self.handles) >= wanted, "more turns")

    def stop(self) -> list[TurnHandle]:
        """Stop the load; returns all accepted turns."""
        self._stop.set()
        self._thread.join()
        return self.handles


@contextmanager
def under_load(orchestrator: Orchestrator) -> Iterator[Load]:
    """Run turns during the block, and assert that each completes once, in order of acceptance."""
    load = Load(orchestrator)
    try:
        yield load
    finally:
        handles = load.stop()
    assert_all_came_true(orchestrator, handles)


def ask(stack: Stack) -> int:
    """Run a turn through the gateway, and follow its events; returns the HTTP status."""
    body = {"model": "tools", "messages": [{"role": "user", "content": "hi"}]}
    return httpx2.post(
        f"{stack.gateway_url}/v1/chat/completions", json=body, timeout=60
    ).status_code
