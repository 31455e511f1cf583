"""The pool to which Celery hands turns: a job is a task of the event loop, not a thread.

Celery's `threads` pool keeps a thread for each turn in flight, waits without a limit at SIGTERM
and cannot terminate a job (celery 5.7, celery/concurrency/thread.py). Here a turn occupies a thread
only while it is claimed and closed, not in between while the model works.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

import orjson
from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool

from agentapi.broker.wire import TASK_NAME
from agentapi.metrics import recorder
from agentapi.metrics.catalog import TURN_SLOTS, TURNS_IN_FLIGHT
from agentapi.supervision import Service
from workers.celery_ext.outcomes import broken, told, told_of_refusal
from workers.turns.claimed import ClaimedTurn
from workers.turns.decision import HandBack, TurnDecision
from workers.turns.summary import Summary
from workers.turns.suspect import SuspectTurn

JSON: Final = "application/json"

to_tell: ContextVar[Callable[[], Summary] | None] = ContextVar("to_tell", default=None)
"""The outcome of the turn whose task Celery is calling. The task's function returns it."""

LAST_WORDS: Final = 5.0
"""Seconds that a claim or close in progress has to finish when the pool stops."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """A task as Celery hands it over.

    Attributes:
        number: Takes the place of a process id, which Celery expects of a job.
        target: Celery's tracer, which calls the task's function.
        args: The tracer's: the task's name, its id, the request, the body, its content type...
        accept: Must be called when the job begins.
        done: Must be called at its end with whether it failed, the result, and the seconds.
    """

    number: int
    target: Callable[..., Any]
    args: tuple[Any, ...]
    accept: Callable[[int, float], None]
    done: Callable[[Any], None]


class TurnPool(BasePool):
    """Claims and closes turns in the runtime's threads, and runs them on its event loop.

    Celery's tracer calls the task once the turn is closed, so the task's result, its signals and
    its end in Flower are those of the turn. Every job that began is answered and frees its slot,
    whatever goes wrong.

    `_changed` guards `_waiting`, `_in_flight` and `limit`. Celery's thread appends and takes jobs;
    the runtime's threads take the next job when one of theirs leaves.
    """

    limit: int
    body_can_be_buffer = True
    signal_safe = False

    def on_start(self) -> None:
        """Start empty."""
        self._numbers = itertools.count(1)
        self._waiting: deque[_Job] = deque()
        # Jobs that hold a slot: from before their claim until Celery has their answer.
        self._in_flight = 0
        self._closing = False
        self._changed = threading.Condition()
        # Logs and counts failures, and restarts nothing: each failure concerns one job.
        self._faults = Service("agentapi-pool", fatal=None)
        recorder().watch(TURN_SLOTS, lambda: self.limit)
        recorder().watch(TURNS_IN_FLIGHT, lambda: self._in_flight)

    def room(self) -> int:
        """How many more tasks can begin now. The consumer takes no more from the broker."""
        # Reads without `_changed`: a number that is off by one does no harm, since a job that finds
        # no place waits in `_waiting`.
        if self._closing or not self.app.runtime.accepting():
            return 0
        return max(0, self.limit - self._in_flight - len(self._waiting))

    def grow(self, n: int) -> None:
        """Run up to `n` more turns at the same time."""
        with self._changed:
            self.limit += _positive(n)
            begin = self._take_waiting()
        for job in begin:
            self._submit(self._claim, job)
        self.app.runtime.wake_consumer()

    def shrink(self, n: int) -> None:
        """Run `n` fewer turns at the same time, once enough of them have ended.

        Raises:
            ValueError: No turn could run any more.
        """
        with self._changed:
            if _positive(n) >= self.limit:
                raise ValueError(f"the limit of {self.limit} turns cannot be reduced by {n}")
            self.limit -= n

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        callback: Callable[..., Any],
        accept_callback: Callable[..., Any],
        **_: Any,
    ) -> None:
        """Begin a task, or keep it until one of those in flight has ended."""
        job = _Job(
            number=next(self._numbers),
            target=target,
            args=tuple(args),
            accept=accept_callback,
            done=callback,
        )
        with self._changed:
            self._waiting.append(job)
            begin = self._take_waiting()
        for next_job in begin:
            self._submit(self._claim, next_job)

    def _take_waiting(self) -> list[_Job]:
        """Take the jobs that may begin now. The caller holds `_changed`."""
        taken = []
        while self._waiting and self._in_flight < self.limit and not self._closing:
            self._in_flight += 1
            taken.append(self._waiting.popleft())
        return taken

    def _submit(self, step: Callable[..., None], job: _Job, *rest: Any) -> None:
        """Take a job's next step in a thread."""
        try:
            self.app.runtime.threads.submit(step, job, *rest)
        except RuntimeError as error:
            # The threads have shut down with the worker. Celery returns unacknowledged tasks to the
            # broker, and the sweep finds the rest.
            self._faults.failed(error)
            self._leave()

    def _claim(self, job: _Job) -> None:
        """In a thread: claim the turn."""
        if self._closing:
            # Not acknowledged yet: Celery returns it to the broker.
            self._leave()
            return
        began = time.monotonic()
        # This acknowledges the message. From here on the lease says who works on the turn: with a
        # late acknowledgement the broker would deliver long turns again while they run. If the
        # process dies before the claim, the sweep sends the wake-up again (promise 3).
        self._guarded(job.accept, job.number, began)
        name, task_id, request, body, content_type, encoding = job.args
        if name != TASK_NAME or content_type != JSON:
            # Not a wake-up: Celery runs this task as usual, in this thread.
            self._trace(job, job.args, began, None)
            return
        traced = job.args
        try:
            decoded = orjson.loads(body)
            # Decode only once: without a content type the tracer takes the body as it is.
            traced = (name, task_id, request, decoded, None, encoding)
            args, kwargs, _ = decoded
            claimed = self.app.runtime.claim(*args, **kwargs, job=job.number)
        except BaseException as error:
            self._faults.failed(error)
            self._trace(job, traced, began, partial(_raise, broken(error)))
            return
        if isinstance(claimed, ClaimedTurn):
            self._run(job, traced, began, claimed)
        elif isinstance(claimed, SuspectTurn):
            self._run_apart(job, traced, began, claimed)
        else:
            self._trace(job, traced, began, partial(told_of_refusal, claimed))

    def _run(self, job: _Job, traced: tuple[Any, ...], began: float, turn: ClaimedTurn) -> None:
        def decided(decision: TurnDecision) -> None:
            # Called on the event loop, which must not block: a thread closes the turn.
            self._submit(self._close, job, traced, began, turn, decision)

        try:
            self.app.runtime.run(turn, decided)
        except BaseException as error:
            # The event loop has ended: hand the turn back to another worker.
            self._faults.failed(error)
            self._close(job, traced, began, turn, HandBack())

    def _run_apart(
        self, job: _Job, traced: tuple[Any, ...], began: float, turn: SuspectTurn
    ) -> None:
        # The job keeps its place until then, although its turn runs in another process.
        def ran_apart(summary: Summary) -> None:
            self._submit(self._trace, job, traced, began, partial(told, summary))

        try:
            self.app.runtime.isolation.run(turn, ran_apart)
        except BaseException as error:
            # The turn is not claimed: the sweep sends its wake-up again.
            self._faults.failed(error)
            self._trace(job, traced, began, partial(_raise, broken(error)))

    def _close(
        self,
        job: _Job,
        traced: tuple[Any, ...],
        began: float,
        turn: ClaimedTurn,
        decision: TurnDecision,
    ) -> None:
        """In a thread: act on the decision, and let the task's function return the outcome."""
        tell: Callable[[], Summary]
        try:
            tell = partial(told, self.app.runtime.close(turn, decision))
        except BaseException as error:
            self._faults.failed(error)
            tell = partial(_raise, broken(error))
        self._trace(job, traced, began, tell)

    def _trace(
        self,
        job: _Job,
        args: tuple[Any, ...],
        began: float,
        tell: Callable[[], Summary] | None,
    ) -> None:
        """Let Celery's tracer call the task, answer the job, and free its place."""
        # The tracer passes only the message's arguments to the task's function, so the outcome
        # travels beside them. Both run in this thread.
        token = to_tell.set(tell)
        try:
            failed, result, _ = job.target(*args)
        except BaseException as error:
            self._faults.failed(error)
            failed, result = 1, _info(broken(error))
        finally:
            to_tell.reset(token)
        self._guarded(job.done, (failed, result, time.monotonic() - began))
        self._leave()

    def _guarded(self, call: Callable[..., object], *args: Any) -> None:
        """Call Celery's own code, whose errors must not affect the turn."""
        try:
            call(*args)
        except BaseException as error:
            self._faults.failed(error)

    def _leave(self) -> None:
        """Free a job's place and begin the next job."""
        with self._changed:
            # While the pool was full, `room` kept the consumer from reading, so it must be woken.
            was_full = self._in_flight >= self.limit
            self._in_flight -= 1
            begin = self._take_waiting()
            self._changed.notify_all()
        for job in begin:
            self._submit(self._claim, job)
        if was_full and not begin:
            self._guarded(self.app.runtime.wake_consumer)

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Cancel the turn of the job `pid`, as Flower and `celery control terminate` ask."""
        self.app.runtime.stop_job(pid)

    def on_stop(self) -> None:
        """Begin nothing more, give running turns their grace period, and hand the rest back."""
        self._closing = True
        self.app.runtime.shutdown.drain()
        with self._changed:
            # Their turns are closed now, but Celery may not have the answers of all jobs yet.
            self._changed.wait_for(lambda: self._in_flight == 0, LAST_WORDS)

    def on_terminate(self) -> None:
        """Hand all turns back immediately."""
        self._closing = True
        self.app.runtime.shutdown.hand_back()

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return {**info, "max-concurrency": self.limit, "in-flight": self._in_flight}


def _positive(n: object) -> int:
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"{n!r} is not a valid number of turns: expected 1 or more")
    return n


def _raise(error: BaseException) -> NoReturn:
    raise error


def _info(error: BaseException) -> ExceptionInfo:
    """The error in the form that Celery's tracer returns."""
    try:
        raise error
    except type(error):
        return ExceptionInfo()  # type: ignore[no-untyped-call]
