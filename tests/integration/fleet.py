"""Worker runtimes in this process, on a real Redis, whose wake-ups are carried by hand."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

from agentapi import Agent, Delegate, Settings, delegate, register_provider, tool
from agentapi.errors import ProviderUnavailable
from agentapi.providers.offline import OfflineProvider
from agentapi.stores import Wakeup
from agentapi.turns import Turn
from orchestrator import Orchestrator
from tests.faults import until
from workers.app import WorkerApp, create_app


class Busy(OfflineProvider):
    """A provider that is told when to be busy."""

    waits: ClassVar[deque[float | None]] = deque()

    async def complete(self, request: Any) -> Any:
        if self.waits and (wait := self.waits.popleft()) is not None:
            raise ProviderUnavailable("busy", provider="moody", status=429, retry_after=wait)
        return await super().complete(request)


register_provider("moody", Busy)


class Broken(OfflineProvider):
    """A provider with a fault of its own."""

    async def complete(self, request: Any) -> Any:
        raise ZeroDivisionError("a fault with the user's words in it")


register_provider("broken", Broken)


@tool
async def nap(seconds: float) -> str:
    """Sleep."""
    await asyncio.sleep(seconds)
    return "rested"


go_on = threading.Event()
"""Set by a test when turns need not linger any more."""


@tool
async def linger() -> str:
    """Wait until the test goes on."""
    while not go_on.is_set():  # noqa: ASYNC110 - it is set in another thread
        await asyncio.sleep(0.01)
    return "rested"


@tool
def ask_nappers(messages: list[str]) -> list[Delegate]:
    """Ask one for each message."""
    return [delegate("napper", message) for message in messages]


AGENTS = [
    Agent(name="busy", provider="moody", tools=[nap]),
    Agent(name="napper", provider="offline", tools=[nap, linger]),
    Agent(name="broken", provider="broken"),
    Agent(name="lead", provider="offline", tools=[ask_nappers]),
]


class Fleet:
    """A worker without Celery's loop: wake-ups are carried by hand."""

    def __init__(self, settings: Settings, agents: Sequence[Agent] = AGENTS) -> None:
        self.app: WorkerApp = create_app(settings, agents)
        self.app.runtime.start("one")
        self.producer = Orchestrator(settings)
        self.sent: list[Wakeup] = []
        self.app.dispatcher.send = self._send  # type: ignore[method-assign]
        self.app.dispatcher.send_all = self._send_all  # type: ignore[method-assign]

    def _send(self, wakeup: Wakeup | None) -> None:
        if wakeup is not None:
            self.sent.append(wakeup)

    def _send_all(self, wakeups: Sequence[Wakeup]) -> None:
        self.sent.extend(wakeups)

    def execute(self, turn: Turn) -> dict[str, Any]:
        return self.app.runtime.execute(turn.conversation_id, turn.turn_id, turn.agent)

    def enqueue(self, agent: str, message: str, **more: Any) -> Turn:
        return self.producer.enqueue(agent, message, **more).info()

    def turn(self, turn: Turn) -> Turn:
        return self.app.store.turn(turn.turn_id)

    def close(self) -> None:
        self.producer.close()
        self.app.runtime.stop()


def run_in_thread(fleet: Fleet, turn: Turn) -> tuple[threading.Thread, list[dict[str, Any]]]:
    """Execute a turn in a thread; returns when its first step is recorded."""
    results: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: results.append(fleet.execute(turn)))
    thread.start()
    until(lambda: fleet.turn(turn).steps > 0, what="the first step")
    return thread, results
