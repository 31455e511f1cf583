"""The worker's side of isolation: its suspect turns, and how each of them ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from agentapi.errors import AgentAPIError
from agentapi.logs import line
from agentapi.metrics import recorder
from agentapi.metrics.pace import pace
from agentapi.metrics.relay import RELAYED, replay
from agentapi.stores import SweepStore
from agentapi.supervision import Service
from workers.dispatch import Dispatcher
from workers.isolation.messages import (
    DONE,
    Answered,
    Cancel,
    Died,
    Goodbye,
    HandBack,
    Lines,
    NotStarted,
    Request,
    Run,
    encode,
)
from workers.isolation.watchdog import Watchdog
from workers.outage import Outage, ride_out
from workers.turns.suspect import SuspectTurn

log = logging.getLogger("agentapi.isolation")

Then: TypeAlias = Callable[[dict[str, Any]], None]
"""Receives the state of a turn once its process has ended. It may be called in any thread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Isolated:
    turn: SuspectTurn
    then: Then
    began: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True)
class IsolatedTurns:
    """Suspect turns of this worker: some run at the same time, the others wait for a slot.

    Attributes:
        places: How many run at the same time.
        service: The state of the watchdog.
    """

    places: int
    store: SweepStore
    dispatcher: Dispatcher
    threads: Executor
    outage: Outage
    service: Service
    _control: socket.socket | None = None
    _running: dict[int, _Isolated] = field(default_factory=dict)
    _lines: Lines = field(default_factory=Lines)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closing: bool = False
    _loop: asyncio.AbstractEventLoop | None = None

    def fork_watchdog(
        self,
        run: Callable[[SuspectTurn], dict[str, Any]],
        on_death: Callable[[Sequence[SuspectTurn]], object],
    ) -> None:
        """Fork the watchdog. Call this before the process starts threads and connections.

        Args:
            run: Runs a turn, in the process that is forked for it.
            on_death: Called in the watchdog when this process was killed, with the turns that were
                still waiting for a place.
        """
        ours, theirs = socket.socketpair()
        # The watchdog shares the current memory. Garbage collections would write to its pages and
        # so copy them.
        gc.collect()
        gc.freeze()
        if os.fork() == 0:
            code = 1
            try:
                ours.close()
                Watchdog(theirs, run, on_death, self.places).serve()
                code = 0
            except BaseException as error:
                log.error(line("watchdog.broken", error=type(error).__name__))
            finally:
                # Not `sys.exit`: this copy of the worker must not run its clean-up or return into
                # Celery.
                os._exit(code)
        # While a copy is open here, the watchdog's end would not close the stream.
        theirs.close()
        self._control = ours

    @property
    def available(self) -> bool:
        """Whether suspect turns can run in processes of their own."""
        # A worker that shuts down, perhaps because its watchdog ended, must not run them itself.
        return self._control is not None or self._closing

    def turns(self) -> list[tuple[SuspectTurn, float]]:
        """The turns that are here, each with the seconds since it arrived."""
        now = time.monotonic()
        with self._changed:
            return [(isolated.turn, now - isolated.began) for isolated in self._running.values()]

    @property
    def count(self) -> int:
        """How many turns are here, including those that wait for a slot."""
        return len(self._running)

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the event loop: start reading messages of the watchdog."""
        if self._control is not None:
            self._control.setblocking(False)
            self._loop = loop
            loop.add_reader(self._control, self._read, loop, self._control)

    def run(self, turn: SuspectTurn, then: Then) -> None:
        """Run a turn in a separate process, as soon as a slot is free.

        Args:
            turn: The turn to run.
            then: Called with the turn's state when the process has ended, or immediately if the
                turn already runs or waits here.
        """
        with self._changed:
            known = any(other.turn.turn_id == turn.turn_id for other in self._running.values())
            if not known and not self._closing and self._control is not None:
                # The watchdog queues it until a slot is free. If this worker is killed in the
                # meantime, the watchdog wakes another worker for it.
                self._running[turn.job] = _Isolated(turn=turn, then=then)
                self._send(Run(turn=turn))
                log.warning(line("turn.isolated", **_ids(turn)))
                return
        # Outside of the lock, as everywhere: it hands over to the pool, which has its own locks.
        then({"status": "suspect"})

    def cancel(self, job: int) -> None:
        """Cancel the turn of one of the pool's jobs, if it runs."""
        with self._changed:
            if job in self._running:
                self._send(Cancel(job=job))

    def hand_back(self) -> None:
        """Hand back all turns, including those that wait for a slot."""
        with self._changed:
            self._closing = True
            # Under the lock, so that no `Run` can follow it.
            self._send(HandBack())

    def wait_until_none(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; returns whether no turn is here any more."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def stop(self) -> None:
        """Say goodbye, which ends the watchdog."""
        with self._changed:
            self._closing = True
            self._send(Goodbye())
            control, self._control = self._control, None
        if control is None:
            return
        if self._loop is None or self._loop.is_closed():
            control.close()
        else:
            self._loop.call_soon_threadsafe(_close, self._loop, control)

    def _send(self, message: Request) -> None:
        # The watchdog does little but read these small messages, so the buffer never fills.
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.sendall(encode(message))

    def _read(self, loop: asyncio.AbstractEventLoop, control: socket.socket) -> None:
        try:
            data = control.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            loop.remove_reader(control)
            self._watchdog_ended()
            return
        for message in self._lines.feed(data):
            match message:
                case Answered(job=job, result=result):
                    replay(result.pop(RELAYED, ()), recorder())
                    pace.add(**result.pop(DONE, {}))
                    self._ended(job, result)
                case Died(job=job, code=code):
                    self._in_thread(job, partial(self._count, code=code))
                case NotStarted(job=job):
                    self._in_thread(job, self._pass_on)

    def _ended(self, job: int, result: dict[str, Any]) -> None:
        with self._changed:
            isolated = self._running.pop(job, None)
            self._changed.notify_all()
        self.service.progress()
        if isolated is not None:
            isolated.then(result)

    def _in_thread(self, job: int, work: Callable[[SuspectTurn], None]) -> None:
        """Leave the event loop, on which calls to Redis and the broker would block."""
        isolated = self._running.get(job)
        if isolated is not None:
            self.threads.submit(self._guarded, work, isolated.turn)

    def _guarded(self, work: Callable[[SuspectTurn], None], turn: SuspectTurn) -> None:
        """Answer the job even after an error, which nobody would retrieve from the future."""
        try:
            work(turn)
        except BaseException as error:
            self.service.failed(error)
            self._ended(turn.job, {"status": "lost"})

    def _pass_on(self, turn: SuspectTurn) -> None:
        """Wake another worker for a turn that was still waiting for a slot when all were handed
        back."""
        self.dispatcher.send(turn.wakeup)
        self._ended(turn.job, {"status": "passed_on"})

    def _count(self, turn: SuspectTurn, code: int) -> None:
        """Count the death of a turn's process, and let the turn try again."""
        result: dict[str, Any] = {"status": "died", "exit": code}
        try:
            # The worker counts, not the dying process or its watchdog: if a whole machine is lost,
            # the death is not counted against the turn (promise 12).
            perished = ride_out(
                lambda: self.store.perish(turn.conversation_id, turn.turn_id, turn.process),
                outage=self.outage,
            )
            if perished is not None:
                result["deaths"] = perished.deaths
                self.dispatcher.send(perished.wakeup)
        except AgentAPIError as error:
            # The lease expires by itself, and the sweep wakes the turn again.
            log.warning(line("isolation.uncounted", **_ids(turn), error=error.code))
        finally:
            deaths = result.get("deaths", 0)
            log.warning(line("turn.died", **_ids(turn), exit=code, deaths=deaths))
            self._ended(turn.job, result)

    def _watchdog_ended(self) -> None:
        """Without its watchdog a worker cannot isolate turns: it shuts down to be restarted."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._control = None
            running = list(self._running.values())
            self._running.clear()
            self._changed.notify_all()
        log.critical(line("watchdog.ended", turns=len(running)))
        for isolated in running:
            isolated.then({"status": "lost"})
        # SIGTERM, not an exit: the turns in this process are still healthy and are handed back.
        os.kill(os.getpid(), signal.SIGTERM)


def _close(loop: asyncio.AbstractEventLoop, control: socket.socket) -> None:
    # The reader first: the descriptor's number may be given to another file at any moment.
    loop.remove_reader(control)
    control.close()


def _ids(turn: SuspectTurn) -> dict[str, str]:
    return {"conversation_id": turn.conversation_id, "turn_id": turn.turn_id}
