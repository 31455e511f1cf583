"""A real worker's runtime in this process, on a real Redis, and what watches it.

Wake-ups are carried by threads of the rig instead of Celery; all else is what a worker has:
event loop, event log, heartbeat and sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from agentapi import Agent, Settings
from agentapi.redis.keys import turn_keys
from agentapi.stores import Wakeup
from agentapi.turns import TERMINAL, TurnStatus
from orchestrator import Orchestrator
from tests.fuzz.watch import Watch
from workers.app import WorkerApp, create_app

BOUND: Final = 60.0
"""Seconds in which a turn must have ended; it takes milliseconds."""

INNOCENT: Final = "innocent"
"""The conversation beside which everything happens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fate:
    """How a turn stands, as Redis has it: what is there may be too odd for the store to read."""

    turn_id: str
    conversation_id: str
    status: str
    code: str | None = None
    message: str = ""

    @property
    def completed(self) -> bool:
        """Whether it gave a reply."""
        return self.status == TurnStatus.COMPLETED


@dataclass(frozen=True)
class _Carrier:
    """The producer's way to the workers."""

    carry: Callable[[Wakeup | None], None]

    def send(self, wakeups: Sequence[Wakeup]) -> None:
        for wakeup in wakeups:
            self.carry(wakeup)

    def close(self) -> None:
        pass


class Rig:
    """Runs turns and keeps the promises in view."""

    def __init__(
        self, settings: Settings, agents: Sequence[Agent], innocents: Mapping[str, str]
    ) -> None:
        """Start it.

        Args:
            settings: Of the worker.
            agents: Whom it serves.
            innocents: Agents beside whom something may happen, with the wording of messages to
                them: ``{}`` stands for what the reply must repeat.
        """
        self.settings = settings
        self.redis = redis.Redis.from_url(settings.redis_url)
        self.watch = Watch(self.redis)
        self._agents = agents
        self._innocents = innocents
        self._said = 0
        self._carriers = ThreadPoolExecutor(16, thread_name_prefix="carrier")
        self._start()

    def _start(self) -> None:
        self.redis.flushall()
        self.faults: list[str] = []
        self.app: WorkerApp = create_app(self.settings, self._agents)
        self.store = self.app.store
        self.runtime = self.app.runtime
        dispatcher = self.app.dispatcher
        dispatcher.send = self._send  # type: ignore[method-assign]
        dispatcher.send_all = self._send_all  # type: ignore[method-assign]
        dispatcher.holds = lambda queue: False  # type: ignore[method-assign]
        dispatcher.reachable = lambda: True  # type: ignore[method-assign]
        self.producer = Orchestrator(self.settings)
        self.producer._wakeups = _Carrier(self._send)
        self.runtime.start("fuzzed")
        for agent in self._innocents:
            with self.innocent(agent):
                pass
        self.producer.enqueue(INNOCENT, "Hello").result(BOUND)
        # Otherwise it starts with the first turn whose end somebody has to wait for.
        self.producer.follower.start()
        # What there is when nothing happens.
        self.watch.begin(self.runtime)

    def _stop(self) -> None:
        self.producer.close()
        self.runtime.stop()

    def renew(self) -> None:
        """Begin again with a runtime that has met nothing odd."""
        with contextlib.suppress(Exception):
            self._stop()
        self.watch.forget()
        self._start()

    def close(self) -> None:
        """Stop it."""
        self._stop()
        self._carriers.shutdown()
        self.redis.close()

    def send(self, wakeup: Wakeup) -> None:
        """Wake a turn."""
        self._send(wakeup)

    def _send(self, wakeup: Wakeup | None) -> None:
        if wakeup is not None:
            self._carriers.submit(self._carry, wakeup)

    def _send_all(self, wakeups: Sequence[Wakeup]) -> None:
        for wakeup in wakeups:
            self._send(wakeup)

    def _carry(self, wakeup: Wakeup) -> None:
        try:
            shown = self.runtime.execute(wakeup.conversation_id, wakeup.turn_id, wakeup.agent)
            self.watch.shown(json.dumps(shown))
        except BaseException as error:
            # In a worker Celery would log it, and the turn would wait for the sweep.
            frames = traceback.extract_tb(error.__traceback__)[-3:]
            places = ", ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
            what = f"{type(error).__name__} out of execute at {places}: {str(error)[:200]}"
            self.faults.append(what)

    def run(self, agent: str, message: str, **more: Any) -> Fate:
        """Enqueue a turn and wait until it has ended.

        Raises:
            AssertionError: It does not end.
        """
        handle = self.producer.enqueue(agent, message, **more)
        return self.fate(handle.turn_id, handle.conversation_id)

    def fate(self, turn_id: str, conversation_id: str) -> Fate:
        """Wait until a turn has ended; see `run`."""
        deadline, pause = time.monotonic() + BOUND, 0.001
        key = turn_keys(turn_id).turn
        while True:
            found: list[bytes | None] = self.redis.hmget(key, ["status", "outcome"])  # type: ignore[assignment]
            status = (found[0] or b"").decode("utf-8", "replace")
            if status in TERMINAL:
                break
            assert time.monotonic() < deadline, f"a turn is still {status!r}: {self.faults}"
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        error = json.loads(found[1] or b"{}").get("error") or {}
        return Fate(
            turn_id=turn_id,
            conversation_id=conversation_id,
            status=status,
            code=error.get("code"),
            message=error.get("message", ""),
        )

    def until_parked(self, turn_id: str) -> None:
        """Wait until a turn waits without a worker."""
        deadline = time.monotonic() + BOUND
        while self.redis.hget(turn_keys(turn_id).turn, "status") != b"parked":
            assert time.monotonic() < deadline, f"a turn does not park: {self.faults}"
            time.sleep(0.002)

    @contextmanager
    def innocent(self, agent: str = INNOCENT) -> Iterator[None]:
        """Beside the block, a turn of another conversation runs and must come through untouched."""
        self._said += 1
        told = f"Message {self._said}"
        message = self._innocents[agent].replace("{}", told)
        turn: Future[Fate] = Future()

        def work() -> None:
            try:
                turn.set_result(self.run(agent, message, conversation_id=f"{INNOCENT}:{agent}"))
            except BaseException as error:
                turn.set_exception(error)

        thread = threading.Thread(target=work, name="innocent", daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join(BOUND + 5)
        fate = turn.result(timeout=0)
        assert fate.completed, f"the innocent turn has {fate.status}: {fate.code} {fate.message}"
        ended = self.store.turn(fate.turn_id)
        assert ended.attempt == 1, "the innocent turn was interrupted"
        assert ended.text is not None
        assert told in ended.text, f"the innocent turn got {ended.text[:200]!r}"

    def on_loop(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something on the runtime's event loop."""
        asyncio.run_coroutine_threadsafe(work, self.runtime._loop.loop).result(BOUND)

    def forget_providers(self) -> None:
        """Let no provider be left alone because of what it answered before."""
        keys = list(self.redis.scan_iter("agentapi:provider:*", count=10_000))
        if keys:
            self.redis.delete(*keys)
        self.runtime._gate.look()

    def read(self, fate: Fate) -> None:
        """Read everything of a turn, as those do who follow it."""
        self.store.turn(fate.turn_id)
        self.producer.history(fate.conversation_id)
        events = self.store.events({fate.turn_id: -1}, 0)[fate.turn_id]
        assert [event.number for event in events] == list(range(len(events)))
        assert events[-1].type.value == fate.status

    def forgive(self, kinds: Sequence[str]) -> None:
        """Take errors of these types for clear ones: Celery shows their names, and no text."""
        self.faults = [fault for fault in self.faults if not fault.startswith(tuple(kinds))]

    def check(self) -> None:
        """After an example: nothing was raised where nothing may be, and nobody was quoted.

        Raises:
            AssertionError: It was.
        """
        faults, self.faults = self.faults, []
        assert not faults, faults
        self.watch.check()

    def settle(self) -> None:
        """After several examples: everything is alive and nothing was left over.

        Raises:
            AssertionError: Something died, or was left.
        """
        self.check()
        self.watch.settled(self.runtime)
