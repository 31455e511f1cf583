"""Turns on a cluster under load, and what must have become of them."""

from __future__ import annotations

import threading

import httpx2

from agentapi.errors import StoreUnavailable
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Stack
from orchestrator.stack.cluster import wait_until

MESSAGE = '/count_up {"seconds": 0.2}'
CONVERSATIONS = 20


class Load:
    """Enqueues turns until it is stopped, as a patient client does."""

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
        """Wait until some more turns were accepted."""
        wanted = len(self.handles) + turns
        wait_until(lambda: len(self.handles) >= wanted, "more turns")

    def stop(self) -> list[TurnHandle]:
        """End it; returns all turns that were accepted."""
        self._stop.set()
        self._thread.join()
        return self.handles


def assert_all_came_true(orchestrator: Orchestrator, handles: list[TurnHandle]) -> None:
    """Each turn completed once, in the order of acceptance."""
    for handle in handles:
        handle.result(timeout=120)
    for conversation in {handle.conversation_id for handle in handles}:
        history = orchestrator.history(conversation)
        said = [message["turn_id"] for message in history if message["role"] == "user"]
        assert said == [h.turn_id for h in handles if h.conversation_id == conversation]


def ask(stack: Stack) -> int:
    """Have a turn run through the gateway, and its events followed; returns the HTTP status."""
    body = {"model": "tools", "messages": [{"role": "user", "content": "hi"}]}
    return httpx2.post(
        f"{stack.gateway_url}/v1/chat/completions", json=body, timeout=60
    ).status_code
