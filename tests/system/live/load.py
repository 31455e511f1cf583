"""Turns of every kind, so that live pages have something to show."""

from __future__ import annotations

import random
import threading
from collections import Counter

from agentapi import Settings
from agentapi.errors import AgentAPIError
from orchestrator import Orchestrator

_MESSAGES = (
    ("desk", "Hello"),
    ("desk", '/echo {"text": "once more"}'),
    ("desk", '/nap {"seconds": 1.5}'),
    ("desk", '/fan_out {"messages": ["one", "two"]}'),
    ("desk", '/refund {"order_id": "7", "amount": 80}'),
    ("slow", "Say this slowly, please, word by word, so that somebody can watch it arrive. " * 3),
    ("faulty", "This fails."),
)


class LiveLoad:
    """Enqueues and decides, so many turns a second, until the end of the ``with``.

    Attributes:
        turns: How many were enqueued.
        problems: How often each error came.
    """

    def __init__(self, settings: Settings, *, rate: float, seed: int = 1) -> None:
        """Describe a load; ``with`` starts it.

        Args:
            settings: Of the producer.
            rate: Turns a second.
            seed: Decides what is asked.
        """
        self.turns = 0
        self.problems: Counter[str] = Counter()
        self._settings = settings
        self._rate = rate
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def _run(self) -> None:
        with Orchestrator(self._settings) as orchestrator:
            while not self._stop.wait(self._chance.expovariate(self._rate)):
                try:
                    self._step(orchestrator)
                except AgentAPIError as error:
                    self.problems[f"{type(error).__name__}: {error}"] += 1

    def _step(self, orchestrator: Orchestrator) -> None:
        agent, message = self._chance.choice(_MESSAGES)
        number = self._chance.randrange(200)
        orchestrator.enqueue(
            agent,
            message,
            conversation_id=f"live:{number}",
            user_id=f"user-{number % 7}",
            stream=agent == "slow",
        )
        self.turns += 1
        waiting = orchestrator.approvals().page(limit=20).items
        # Some stay, so that the queue of approvals is never empty for long.
        for call in waiting[3:]:
            turn = orchestrator.turn(call.turn_id)
            if self._chance.random() < 0.5:
                turn.approve(call.call_id, by="the load")
            else:
                turn.reject(call.call_id, "not today", by="the load")

    def __enter__(self) -> LiveLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
