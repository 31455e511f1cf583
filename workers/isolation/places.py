"""The worker's side: which suspect turns run in processes of their own, and what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from agentapi.errors import AgentAPIError
from agentapi.logs import line
from agentapi.stores import TurnStore
from agentapi.supervision import Service
from workers.dispatch import Dispatcher
from workers.isolation.messages import (
    Answered,
    Cancel,
    Died,
    Goodbye,
    HandBack,
    Lines,
    NotStarted,
    Request,
    Run,
    SuspectTurn,
    encode,
)
from workers.isolation.watchdog import Watchdog
from workers.outage import Outage, ride_out

log = logging.getLogger("agentapi.isolation")

Then: TypeAlias = Callable[[dict[str, Any]], None]
"""Told how a turn stands when its process has ended; may be called in any thread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Isolated:
    turn: SuspectTurn
    then: Then


@dataclass(kw_only=True)
class IsolatedTurns:
    """Suspect turns of this worker: a few run at once, the others wait for a place.

    Attributes:
        places: How many run at once.
        service: Tells how the watchdog is doing.
    """

    places: int
    store: TurnStore
    dispatcher: Dispatcher
    threads: Executor
    outage: Outage
    service: Service
    _control: socket.socket | None = None
    _running: dict[int, _Isolated] = field(default_factory=dict)
    _lines: Lines = field(default_factory=Lines)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closing: bool = False

    def fork_watchdog(
        self,
        run: Callable[[SuspectTurn], dict[str, Any]],
        on_death: Callable[[Sequence[SuspectTurn]], object],
    ) -> None:
        """Fork the watchdog. To be called before this process starts threads and connections.

        Args:
            run: What a process does that is forked for a turn.
            on_death: What the watchdog does when this process was killed; gets the turns that
                still waited for a place.
        """
        ours, theirs = socket.socketpair()
        # What exists now is shared with the watchdog for good: not touching it in collections
        # keeps those pages of memory common.
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
                os._exit(code)
        theirs.close()
        self._control = ours

    @property
    def available(self) -> bool:
        """Whether suspect turns can be run apart."""
        return self._control is not None

    @property
    def count(self) -> int:
        """How many turns are here, those that wait for a place too."""
        return len(self._running)

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the event loop: hear what the watchdog says."""
        if self._control is not None:
            self._control.setblocking(False)
            loop.add_reader(self._control, self._read, loop, self._control)

    def run(self, turn: SuspectTurn, then: Then) -> None:
        """Run a turn in a process of its own, as soon as there is a place.

        Args:
            turn: What to run.
            then: Told how the turn stands when the process has ended. At once when the turn runs
                or waits here already.
        """
        with self._changed:
            known = any(other.turn.turn_id == turn.turn_id for other in self._running.values())
            if not known and not self._closing and self._control is not None:
                # The watchdog keeps it until there is a place, and wakes another worker for it
                # should this one be killed meanwhile.
                self._running[turn.job] = _Isolated(turn=turn, then=then)
                self._send(Run(turn=turn))
                log.warning(line("turn.isolated", turn_id=turn.turn_id))
                return
        then({"status": "suspect"})

    def cancel(self, job: int) -> None:
        """Cancel the turn of one of the pool's jobs, if it runs."""
        with self._changed:
            if job in self._running:
                self._send(Cancel(job=job))

    def hand_back(self) -> None:
        """Hand back all turns, those that wait for a place too."""
        with self._changed:
            self._closing = True
            self._send(HandBack())

    def wait_until_none(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; returns whether no turn is here any more."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def stop(self) -> None:
        """Say goodbye: the watchdog ends."""
        with self._changed:
            self._closing = True
            self._send(Goodbye())
            control, self._control = self._control, None
        if control is not None:
            control.close()

    def _send(self, message: Request) -> None:
        # Small messages to a process that does nothing but read them: the buffer never fills.
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
        """Redis and the broker are not for the event loop."""
        isolated = self._running.get(job)
        if isolated is not None:
            self.threads.submit(self._guarded, work, isolated.turn)

    def _guarded(self, work: Callable[[SuspectTurn], None], turn: SuspectTurn) -> None:
        """Nobody asks for the future: an error must not vanish, and the job must be answered."""
        try:
            work(turn)
        except BaseException as error:
            self.service.failed(error)
            self._ended(turn.job, {"status": "lost"})

    def _pass_on(self, turn: SuspectTurn) -> None:
        """The turn waited for a place when all were handed back."""
        self.dispatcher.send(turn.wakeup)
        self._ended(turn.job, {"status": "passed_on"})

    def _count(self, turn: SuspectTurn, code: int) -> None:
        """The process of a turn died: count it, and let the turn try again."""
        result: dict[str, Any] = {"status": "died", "exit": code}
        try:
            perished = ride_out(
                lambda: self.store.perish(turn.conversation_id, turn.turn_id, turn.process),
                outage=self.outage,
            )
            if perished is not None:
                result["deaths"] = perished.deaths
                self.dispatcher.send(perished.wakeup)
        except AgentAPIError as error:
            # The lease ends by itself, and the sweep wakes the turn again.
            log.warning(line("isolation.uncounted", turn_id=turn.turn_id, error=error.code))
        finally:
            deaths = result.get("deaths", 0)
            log.warning(line("turn.died", turn_id=turn.turn_id, exit=code, deaths=deaths))
            self._ended(turn.job, result)

    def _watchdog_ended(self) -> None:
        """Without a watchdog nothing can be isolated: the worker ends in order, to be restarted."""
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
        os.kill(os.getpid(), signal.SIGTERM)
