"""The watchdog: a small process beside each worker.

It forks a process for each suspect turn of its worker. When the worker is killed, it frees the
worker's turns. It cannot be wrong about the worker's death, because the kernel reports it.

The watchdog is forked from the worker before the worker starts any thread or connection, so it
shares the worker's memory (modules, agents), and forking it is safe and takes milliseconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import orjson

from agentapi.logs import line
from workers.isolation.messages import (
    Answered,
    Cancel,
    Died,
    Goodbye,
    HandBack,
    Lines,
    NotStarted,
    Response,
    Run,
    encode,
)
from workers.turns.suspect import SuspectTurn

log = logging.getLogger("agentapi.watchdog")

HAND_BACK: Final = signal.SIGTERM
"""The signal that tells a turn's process to hand its turn back and end."""

CANCEL: Final = signal.SIGUSR1
"""The signal that tells a turn's process to cancel its turn."""

SIGNALS: Final = frozenset({HAND_BACK, CANCEL})
"""Signals that are blocked in a turn's process until its handlers are installed."""

LAST_WORDS: Final = 5.0
"""Seconds for handing turns back once the worker is gone."""

LOOK: Final = 1.0
"""Seconds between checks whether the worker is alive, on systems that do not report its end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Child:
    """A process that runs a turn.

    Attributes:
        answers: Where its answer is read: the end of a pipe.
    """

    job: int
    pid: int
    answers: int


class Watchdog:
    """Forks processes on request, reports how each ended, and ends with its worker."""

    def __init__(
        self,
        control: socket.socket,
        run: Callable[[SuspectTurn], dict[str, Any]],
        on_death: Callable[[Sequence[SuspectTurn]], object],
        places: int,
    ) -> None:
        """Create the watchdog, in its own process.

        Args:
            control: Connected to the worker.
            run: Runs a turn in a forked process, and returns its state.
            on_death: Called when the worker died without a goodbye, with the turns that were still
                waiting for a slot.
            places: How many turns run at the same time.
        """
        self._control = control
        self._run = run
        self._on_death = on_death
        self._places = places
        self._waiting: deque[SuspectTurn] = deque()
        self._goodbye = False
        self._worker = os.getppid()
        self._children: dict[int, _Child] = {}
        self._lines = Lines()
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Serve until the worker says goodbye or dies, then hand all turns back."""
        self._watch()
        # Without pidfds, a change of the parent process shows that the worker is gone.
        while self._take_requests() and os.getppid() == self._worker:
            self._reap()
            self._start_waiting()
        self._signal_all(HAND_BACK)
        if not self._goodbye:
            self._wait_for_death()
            self._on_death(tuple(self._waiting))
        # The processes have been handing back in the meantime. Those that are killed below lose no
        # recorded step: their leases expire, and the sweep wakes their turns.
        self._wait_for_children(LAST_WORDS)
        self._signal_all(signal.SIGKILL)

    def _watch(self) -> None:
        """Register what ends a wait: requests, the end of a child, and the end of the worker."""
        # Ignore signals to the worker's process group: this process must outlive the worker.
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        reader, writer = os.pipe()
        for descriptor in (reader, writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        # An empty handler, because Python reports only signals with a handler of its own to the
        # pipe.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._control.setblocking(False)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(reader, selectors.EVENT_READ, reader)
        with contextlib.suppress(AttributeError, OSError):
            # The end of a pipe would come late: a process that a tool started may keep it open.
            self._selector.register(os.pidfd_open(self._worker), selectors.EVENT_READ, -1)

    def _take_requests(self) -> bool:
        """Wait for requests; returns whether the worker still needs the watchdog."""
        for key, _ in self._selector.select(LOOK):
            if key.data == -1:
                return False
            if key.data is not None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.data, 4096)
                continue
            try:
                data = self._control.recv(65_536)
            except ConnectionError:
                # The worker was killed and left a message unread.
                return False
            if not data:
                return False
            for message in self._lines.feed(data):
                self._carry_out(message)
        return not self._goodbye

    def _carry_out(self, message: object) -> None:
        match message:
            case Run(turn=turn):
                self._waiting.append(turn)
                self._start_waiting()
            case Cancel(job=job):
                for child in self._children.values():
                    if child.job == job:
                        os.kill(child.pid, CANCEL)
            case HandBack():
                self._signal_all(HAND_BACK)
                while self._waiting:
                    self._send(NotStarted(job=self._waiting.popleft().job))
            case Goodbye():
                self._goodbye = True

    def _start_waiting(self) -> None:
        while self._waiting and len(self._children) < self._places:
            self._fork(self._waiting.popleft())

    def _fork(self, turn: SuspectTurn) -> None:
        reader, writer = os.pipe()
        # Signals stay blocked in the child until it can handle them.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._be_child(turn, writer)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(writer)
        self._children[pid] = _Child(job=turn.job, pid=pid, answers=reader)

    def _be_child(self, turn: SuspectTurn, writer: int) -> NoReturn:
        """Run the turn and end the process, so that no code of the watchdog runs in it."""
        code = 1
        try:
            # The pipe is shared with the watchdog: a signal to this process must not wake that one.
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            # While a copy is open here, the worker would not notice the end of its watchdog.
            self._control.close()
            for child in self._children.values():
                os.close(child.answers)
            answer = orjson.dumps(self._run(turn))
            # Shorter than a pipe's buffer, so that it never waits for the server.
            os.write(writer, answer)
            code = 0
        except BaseException as error:
            ids = {"conversation_id": turn.conversation_id, "turn_id": turn.turn_id}
            log.error(line("isolation.broken", **ids, error=type(error).__name__))
        finally:
            os._exit(code)

    def _reap(self) -> None:
        """Report to the worker the children that have ended."""
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._report(self._children.pop(pid), os.waitstatus_to_exitcode(status))

    def _report(self, child: _Child, code: int) -> None:
        os.set_blocking(child.answers, False)
        answer = b""
        # Would block if a process that the turn started holds the pipe and no answer came.
        with contextlib.suppress(BlockingIOError):
            answer = os.read(child.answers, 65_536)
        os.close(child.answers)
        message = (
            Answered(job=child.job, result=orjson.loads(answer))
            if code == 0 and answer
            else Died(job=child.job, code=code)
        )
        self._send(message)

    def _send(self, message: Response) -> None:
        # Messages are small, and the worker reads them on its event loop.
        self._control.setblocking(True)
        try:
            self._control.sendall(encode(message))
        except ConnectionError:
            # The worker is gone. `serve` learns of it by the next read.
            log.debug(line("watchdog.unheard"))
        finally:
            self._control.setblocking(False)

    def _wait_for_death(self) -> None:
        """Wait for the worker to end: its end of the socket closes a moment earlier."""
        while os.getppid() == self._worker:
            time.sleep(0.01)

    def _signal_all(self, number: int) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _wait_for_children(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._children and time.monotonic() < deadline:
            for pid in list(self._children):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    del self._children[pid]
            time.sleep(0.02)
