"""The watchdog: a small process beside each worker.

It forks a process for each turn that lost its worker, and when its own worker is killed it frees
that one's turns. It cannot be wrong about the worker's death: the kernel tells it.

The watchdog is forked from the worker before the worker starts any thread or connection, so it
shares the worker's memory (modules, agents), and a fork of it is clean and takes milliseconds.
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
    SuspectTurn,
    encode,
)

log = logging.getLogger("agentapi.watchdog")

HAND_BACK: Final = signal.SIGTERM
"""Tells a turn's process to hand its turn back and end."""

CANCEL: Final = signal.SIGUSR1
"""Tells a turn's process to cancel its turn."""

SIGNALS: Final = frozenset({HAND_BACK, CANCEL})
"""Blocked in a turn's process until that handles them."""

LAST_WORDS: Final = 5.0
"""Seconds that turns get to be handed back when the worker is gone."""

LOOK: Final = 1.0
"""Seconds between looks whether the worker still lives, where the system does not tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Child:
    """A process that runs a turn.

    Attributes:
        answers: The end of the pipe that it writes its answer to.
    """

    job: int
    pid: int
    answers: int


class Watchdog:
    """Forks processes on request, tells how each ended, and ends with its worker."""

    def __init__(
        self,
        control: socket.socket,
        run: Callable[[SuspectTurn], dict[str, Any]],
        on_death: Callable[[Sequence[SuspectTurn]], object],
        places: int,
    ) -> None:
        """Make one, in the process that it is to run in.

        Args:
            control: Connected to the worker.
            run: What a forked process does: runs the turn, returns how it stands.
            on_death: Called when the worker is dead and has not said goodbye, with the turns that
                still waited for a place.
            places: How many turns run at once.
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
        """Serve until the worker says goodbye or dies. Then hand all turns back."""
        self._watch()
        while self._take_requests() and os.getppid() == self._worker:
            self._reap()
            self._start_waiting()
        self._signal_all(HAND_BACK)
        if not self._goodbye:
            self._wait_for_death()
            self._on_death(tuple(self._waiting))
        self._wait_for_children(LAST_WORDS)
        self._signal_all(signal.SIGKILL)

    def _watch(self) -> None:
        """Wake up for requests, for the end of a child, and for the end of the worker."""
        # Signals to the worker's process group are not for this process: it outlives the worker.
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        reader, writer = os.pipe()
        for descriptor in (reader, writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._control.setblocking(False)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(reader, selectors.EVENT_READ, reader)
        with contextlib.suppress(AttributeError, OSError):
            # A pipe tells late: a process that a tool started may hold its other end.
            self._selector.register(os.pidfd_open(self._worker), selectors.EVENT_READ, -1)

    def _take_requests(self) -> bool:
        """Wait for something to do; returns whether the worker still wants something."""
        for key, _ in self._selector.select(LOOK):
            if key.data == -1:
                return False
            if key.data is not None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.data, 4096)
                continue
            data = self._control.recv(65_536)
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
        # A signal for the child waits until the child can handle it.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._be_child(turn, writer)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(writer)
        self._children[pid] = _Child(job=turn.job, pid=pid, answers=reader)

    def _be_child(self, turn: SuspectTurn, writer: int) -> NoReturn:
        """Run the turn and end. Nothing of the server may run behind this."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            self._control.close()
            for child in self._children.values():
                os.close(child.answers)
            answer = orjson.dumps(self._run(turn))
            # Shorter than a pipe's buffer, so that it never waits for the server.
            os.write(writer, answer)
            code = 0
        except BaseException as error:
            log.error(line("isolation.broken", turn_id=turn.turn_id, error=type(error).__name__))
        finally:
            os._exit(code)

    def _reap(self) -> None:
        """Tell the worker of the children that have ended."""
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._tell(self._children.pop(pid), os.waitstatus_to_exitcode(status))

    def _tell(self, child: _Child, code: int) -> None:
        os.set_blocking(child.answers, False)
        answer = b""
        # Blocks when something that the turn started still holds the pipe and nothing came.
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
        self._control.sendall(encode(message))
        self._control.setblocking(False)

    def _wait_for_death(self) -> None:
        """The worker's end of the socket is closed; its process may be a moment behind."""
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
