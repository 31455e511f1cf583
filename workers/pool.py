"""The pool that Celery hands turns to: a job is a task of the event loop, not a thread.

Celery's `threads` pool keeps a thread for each turn in flight, waits for ever at SIGTERM and cannot
terminate a job (celery 5.7, celery/concurrency/thread.py). Here a thread is held only for a turn's
claim and for its end; in between, while the model is asked, a turn holds none.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import orjson
from celery.concurrency.base import BasePool, apply_target

from agentapi.wire import TASK_NAME
from workers.claimed import ClaimedTurn, Outcome
from workers.isolation import SuspectTurn
from workers.logs import line

log = logging.getLogger("agentapi.pool")

JSON: Final = "application/json"

to_end: ContextVar[Callable[[], dict[str, Any]] | None] = ContextVar("to_end", default=None)
"""What is left of the turn whose task is called now: the task's function ends it."""

LAST_WORDS: Final = 5.0
"""Seconds that a claim or an end under way gets when the pool stops."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """A task as Celery gives it.

    Attributes:
        number: What stands for Celery's process id of the job.
        target: Celery's tracer, which calls the task's function.
        args: Of the tracer: the task's name, its id, the request, the body, its content type...
        accept: To be called when it begins.
        done: To be called with whether it failed, the result, and the seconds it took.
    """

    number: int
    target: Callable[..., Any]
    args: tuple[Any, ...]
    accept: Callable[[int, float], None]
    done: Callable[[Any], None]


class TurnPool(BasePool):
    """Claims and ends turns in the runtime's threads, and carries them out on its event loop.

    Celery's tracer calls the task when only the end of the turn is left: its result, its signals
    and the task's end in Flower are those of the turn.
    """

    limit: int
    body_can_be_buffer = True
    signal_safe = False

    def on_start(self) -> None:
        """Nothing runs yet."""
        self._numbers = itertools.count(1)
        self._waiting: deque[_Job] = deque()
        self._in_flight = 0
        self._closing = False
        self._changed = threading.Condition()

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
            if self._in_flight >= self.limit:
                self._waiting.append(job)
                return
            self._in_flight += 1
        self.app.runtime.threads.submit(self._begin, job)

    def _begin(self, job: _Job) -> None:
        """In a thread: claim the turn."""
        if self._closing:
            # It is not acknowledged; Celery gives it back.
            self._leave()
            return
        began = time.monotonic()
        try:
            job.accept(job.number, began)
            name, task_id, request, body, content_type, encoding = job.args
            if name != TASK_NAME or content_type != JSON:
                apply_target(job.target, job.args, callback=job.done, pid=job.number)
                self._leave()
                return
            decoded = orjson.loads(body)
            # Decoded once, here: without a content type the tracer takes it as it is.
            job = replace(job, args=(name, task_id, request, decoded, None, encoding))
            turn = self._claim(job.number, decoded)
        except BaseException as error:
            self._failed(error)
            raise
        if isinstance(turn, ClaimedTurn):
            self._carry_out(job, began, turn)
        elif isinstance(turn, SuspectTurn):
            self.app.runtime.isolation.run(turn, partial(self._ran_apart, job, began))
        else:
            self._end(job, began, turn)

    def _carry_out(self, job: _Job, began: float, turn: ClaimedTurn) -> None:
        runtime = self.app.runtime
        try:
            runtime.carry_out(turn, partial(self._carried_out, job, began, turn))
        except RuntimeError:
            # The event loop has ended: another worker gets the turn.
            self._end(job, began, lambda: runtime.end(turn, None))

    def _claim(
        self, number: int, body: Any
    ) -> ClaimedTurn | SuspectTurn | Callable[[], dict[str, Any]]:
        """What is to be carried out; or what the task's function has left to do."""
        try:
            args, kwargs, _ = body
            claimed = self.app.runtime.begin(*args, **kwargs, job=number)
        except Exception as error:
            # Celery is told by the task's function.
            return partial(_fail, error)
        return partial(dict, claimed) if isinstance(claimed, dict) else claimed

    def _ran_apart(self, job: _Job, began: float, result: dict[str, Any]) -> None:
        """In any thread: a turn's own process has ended."""
        self.app.runtime.threads.submit(self._end, job, began, partial(dict, result))

    def _carried_out(self, job: _Job, began: float, turn: ClaimedTurn, outcome: Outcome) -> None:
        """On the event loop: the rest is for a thread again."""
        runtime = self.app.runtime
        runtime.threads.submit(self._end, job, began, lambda: runtime.end(turn, outcome))

    def _end(self, job: _Job, began: float, end: Callable[[], dict[str, Any]]) -> None:
        """In a thread: let the task's function do the rest, and tell Celery."""

        def done(answer: Any) -> None:
            match answer:
                case (failed, result, _):
                    job.done((failed, result, time.monotonic() - began))
                case _:
                    job.done(answer)

        ended = _Once(end)
        token = to_end.set(ended)
        try:
            apply_target(job.target, job.args, callback=done, pid=job.number)
        except BaseException as error:
            self._failed(error)
            raise
        else:
            self._leave()
        finally:
            to_end.reset(token)
            # Celery's code raised before it called the task: the turn ends all the same.
            ended.make_sure()

    def _failed(self, error: BaseException) -> None:
        """Celery's own code raised: its task stays as it is, the others go on."""
        log.error(line("task.broken", error=type(error).__name__))
        self._leave()

    def _leave(self) -> None:
        """A job has ended: begin the next."""
        with self._changed:
            if self._waiting and not self._closing:
                self.app.runtime.threads.submit(self._begin, self._waiting.popleft())
                return
            self._in_flight -= 1
            self._changed.notify_all()

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Cancel the turn of the job `pid` (Flower's and `celery`'s terminate)."""
        self.app.runtime.stop_job(pid)

    def on_stop(self) -> None:
        """Take nothing more; give turns their grace, hand the rest back."""
        self._closing = True
        self.app.runtime.drain()
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight == 0, LAST_WORDS)

    def on_terminate(self) -> None:
        """Hand all turns back at once."""
        self._closing = True
        self.app.runtime.hand_back()

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        return {**info, "max-concurrency": self.limit, "in-flight": self._in_flight}


class _Once:
    """What is left of a turn: done when the task is called, or else after it."""

    def __init__(self, end: Callable[[], dict[str, Any]]) -> None:
        self._end = end
        self._called = False

    def __call__(self) -> dict[str, Any]:
        self._called = True
        return self._end()

    def make_sure(self) -> None:
        if not self._called:
            try:
                self()
            except Exception as error:
                log.error(line("task.broken", error=type(error).__name__))


def _fail(error: Exception) -> dict[str, Any]:
    raise error
