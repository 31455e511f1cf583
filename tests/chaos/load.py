"""The producer: keeps a number of turns open, and records each accepted turn."""

from __future__ import annotations

import random
import threading
import time

from agentapi import Settings
from agentapi.errors import StoreUnavailable, TurnNotFound
from orchestrator import Orchestrator
from tests.chaos.checker import AcceptedTurn


class Load:
    """A thread that enqueues at least a number of turns in many conversations, until `finish`.

    A call that fails because Redis is unavailable is repeated in order, with its idempotency key.
    """

    def __init__(
        self,
        settings: Settings,
        conversations: list[str],
        *,
        turns: int,
        open_turns: int,
        seed: int,
        longest: float,
    ) -> None:
        self.accepted: list[AcceptedTurn] = []
        self.open: dict[str, str] = {}
        self.missing: list[str] = []
        self.repeats = 0
        self._settings = settings
        self._conversations = conversations
        self._turns = turns
        self._open_turns = open_turns
        self._random = random.Random(seed)
        self._longest = longest
        self._stop = threading.Event()
        self._finish = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def done(self) -> bool:
        """Whether all turns were accepted and have ended."""
        return self._enough and not self.open

    @property
    def _enough(self) -> bool:
        return self._finish.is_set() and len(self.accepted) >= self._turns

    def finish(self) -> None:
        """Enqueue no more turns than the agreed number."""
        self._finish.set()

    def _run(self) -> None:
        try:
            with Orchestrator(self._settings) as orchestrator:
                while not self._stop.is_set() and not self.done:
                    while len(self.open) < self._open_turns and not self._enough:
                        self._enqueue(orchestrator)
                    self._forget_ended(orchestrator)
                    time.sleep(0.05)
        except BaseException as error:
            self.error = error
            raise

    def _enqueue(self, orchestrator: Orchestrator) -> None:
        number = len(self.accepted)
        conversation = self._random.choice(self._conversations)
        tool = self._random.choice(("work", "charge"))
        seconds = round(self._random.uniform(0, self._longest), 3)
        while True:
            try:
                handle = orchestrator.enqueue(
                    "chaos",
                    f'/{tool} {{"seconds": {seconds}}}',
                    conversation_id=conversation,
                    idempotency_key=str(number),
                )
            except StoreUnavailable:
                self.repeats += 1
                if self._stop.wait(0.2):
                    return
            else:
                break
        self.accepted.append(AcceptedTurn(conversation, handle.turn_id, time.monotonic()))
        self.open[handle.turn_id] = conversation

    def _forget_ended(self, orchestrator: Orchestrator) -> None:
        for turn_id in list(self.open):
            try:
                if orchestrator.store.turn(turn_id).status.ended:
                    del self.open[turn_id]
            except StoreUnavailable:
                return
            except TurnNotFound:
                # The checker decides whether that is allowed.
                self.missing.append(turn_id)
                del self.open[turn_id]
