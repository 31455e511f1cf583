"""The process's fault points: each that is passed is counted, and some have a fault.

Instrumented code calls `awaiting`, `calling` and the like (see `compiled` and `patches`). Unless a
plan is armed they do nothing but call on.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from tests.faultpoints.effects import HANG, Effect, Fault, Kind, die, error_of

P = ParamSpec("P")
T = TypeVar("T")

_inside: ContextVar[bool] = ContextVar("inside_a_point", default=False)


class Injector:
    """Counts the points of this process, and makes those of the plan fail."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed = False
        self._plan: dict[tuple[str, int], Fault] = {}
        self._passed: Counter[str] = Counter()
        self.fired = -1
        """A descriptor to which each fault is written before it happens."""

    def arm(self, plan: Sequence[Fault]) -> None:
        """Count from now on; these faults are to happen."""
        with self._lock:
            self._passed.clear()
            self._plan = {(fault.point, fault.occurrence): fault for fault in plan}
            self._armed = True

    def disarm(self) -> dict[str, int]:
        """Stop; returns how often each point was passed."""
        with self._lock:
            self._armed = False
            self._plan = {}
            return dict(self._passed)

    def passing(self, point: str) -> Fault | None:
        """A point is passed: the fault that is to happen, if any."""
        if not self._armed or _inside.get():
            return None
        thread = threading.current_thread().name
        with self._lock:
            self._passed[point] += 1
            fault = self._plan.pop((point, self._passed[point]), None)
        if fault is not None:
            note = {"fault": str(fault), "thread": thread, "pid": os.getpid()}
            os.write(self.fired, json.dumps(note).encode() + b"\n")
        return fault


injector = Injector()


@contextmanager
def one_point() -> Iterator[None]:
    """What a point does inside itself is no point."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def call_at(point: str, function: Callable[[], T], *, whole: bool = False) -> T:
    """Pass a point that is a call.

    Args:
        point: Its name.
        function: What is called there.
        whole: Whether points inside the call do not count.
    """
    fault = injector.passing(point)
    if whole:
        inner = function

        def function() -> T:
            with one_point():
                return inner()

    if fault is None:
        return function()
    if fault.effect is Effect.KILL:
        die()
    if fault.effect is Effect.HANG:
        time.sleep(HANG)
        return function()
    if fault.effect in (Effect.KILL_AFTER, Effect.LOST_ANSWER):
        function()
    if fault.effect is Effect.KILL_AFTER:
        die()
    raise error_of(fault)


async def await_at(point: str, make: Callable[[], Awaitable[T]], *, whole: bool = False) -> T:
    """The same for what is awaited."""
    fault = injector.passing(point)

    async def wait() -> T:
        if not whole:
            return await make()
        with one_point():
            return await make()

    if fault is None:
        return await wait()
    match fault.effect:
        case Effect.KILL:
            die()
        case Effect.HANG:
            await asyncio.sleep(HANG)
            return await wait()
        case Effect.CANCEL:
            task = asyncio.current_task()
            assert task is not None
            # Nobody but its owner cancels a service; but what it awaits may be cancelled.
            if getattr(task.get_coro(), "__qualname__", "") == "TaskService._run":
                raise asyncio.CancelledError
            task.cancel()
            await asyncio.sleep(0)
        case Effect.KILL_AFTER | Effect.LOST_ANSWER:
            await wait()
    if fault.effect is Effect.KILL_AFTER:
        die()
    raise error_of(fault)


# What compiled code calls; see `compiled`.


async def awaiting(point: str, awaitable: Awaitable[T]) -> T:
    """``await X`` is compiled to ``await awaiting(point, X)``."""
    begun = False

    async def make() -> T:
        nonlocal begun
        begun = True
        return await awaitable

    try:
        return await await_at(point, make)
    finally:
        # A coroutine that will never run would warn.
        close = getattr(awaitable, "close", None)
        if not begun and asyncio.iscoroutine(awaitable) and close is not None:
            close()


class iterating(AsyncIterator[T]):  # noqa: N801
    """``async for part in X`` is compiled to ``async for part in iterating(point, X)``."""

    def __init__(self, point: str, source: AsyncIterable[T]) -> None:
        self._point = point
        self._iterator = source.__aiter__()

    async def __anext__(self) -> T:
        return await await_at(self._point, self._iterator.__anext__)


class managing(AbstractAsyncContextManager[T]):  # noqa: N801
    """``async with X`` is compiled to ``async with managing(point, X)``: a point at the entry."""

    def __init__(self, point: str, manager: AbstractAsyncContextManager[T]) -> None:
        self._point = point
        self._manager = manager

    async def __aenter__(self) -> T:
        return await await_at(self._point, self._manager.__aenter__)

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._manager.__aexit__(*error)


def handing(point: str, function: Callable[..., T], *args: Any, **options: Any) -> T:
    """``pool.submit(work, ...)`` is compiled to ``handing(point, pool.submit, work, ...)``.

    Where the work begins is a point as well.
    """
    args = tuple(_beginning(arg) for arg in args)
    options = {name: _beginning(option) for name, option in options.items()}
    return call_at(point, lambda: function(*args, **options))


def _beginning(work: Any) -> Any:
    if not callable(work) or isinstance(work, type):
        return work
    function = work
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", type(function).__name__)
    point = f"{Kind.BEGIN} {getattr(function, '__module__', None) or 'builtins'}.{name}"

    @functools.wraps(function)
    def begin(*args: Any, **options: Any) -> Any:
        return call_at(point, lambda: work(*args, **options))

    return begin
