"""What must not happen, whatever comes in: words in logs, dead threads, things left over."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis

from agentapi.logs import configure_logging
from agentapi.providers.gemini.client import hide_quotes
from tests.fuzz.values import CANARY
from workers.runtime import Runtime

SETTLED: Final = 60.0
"""Seconds in which what has ended must be gone."""

LASTING: Final = (
    "_kombu",
    "unacked",
    "agentapi:broker:",
    "agentapi:gateway",
    "agentapi:key",
    "agentapi:protocol",
    "agentapi:tenant",
    "agentapi:{sweeper}",
)
"""What begins so may stay in Redis for ever; so may one key for each partition."""

SERVICES: Final = ("agentapi-loop", "agentapi-events", "agentapi-heartbeat", "agentapi-sweep")


class _Trap(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Watch:
    """Listens to logs, warnings and threads of this process."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._trap = _Trap()
        self._trap.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self._deaths: list[str] = []
        self._threads: Counter[str] = Counter()
        self._alive: set[str] = set()
        self._tasks: Counter[str] = Counter()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what is logged, warned of and raised in threads until the block ends."""
        root = logging.getLogger()
        levels, handlers, hook = _levels(), list(root.handlers), threading.excepthook
        configure_logging("INFO")
        root.handlers[:] = [self._trap]
        threading.excepthook = self._thread_died
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                hide_quotes()
                # As Celery does with what a worker writes to stderr.
                warnings.showwarning = self._warned
                yield
        finally:
            threading.excepthook = hook
            root.handlers[:] = handlers
            for name, level in levels.items():
                logging.getLogger(name or None).setLevel(level)

    def _warned(self, message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        self._trap.lines.append(f"warning {category.__name__}: {message}")

    def _thread_died(self, args: Any) -> None:
        name = args.thread.name if args.thread else "?"
        self._deaths.append(f"thread {name}: {args.exc_type.__name__}: {str(args.exc_value)[:200]}")

    def shown(self, text: str) -> None:
        """What Flower is told."""
        self._trap.lines.append(f"flower {text}")

    def forget(self) -> None:
        """Begin again."""
        self._deaths.clear()
        self._trap.lines.clear()

    def check(self) -> None:
        """Raises:
        AssertionError: A thread died, or a line shows what somebody said.
        """
        deaths, self._deaths = self._deaths, []
        lines, self._trap.lines = self._trap.lines, []
        assert not deaths, deaths
        quoted = [line[:2000] for line in lines if CANARY in line.lower()]
        assert not quoted, f"a log quotes what was said: {quoted[:3]}"
        crashed = [line for line in lines if "crashed" in line or "service.failed" in line]
        assert not crashed, crashed[:3]

    def begin(self, runtime: Runtime) -> None:
        """Remember what there is now."""
        self._threads = _threads()
        self._alive = {one.name for one in runtime.supervisor.status() if one.running}
        self._tasks = _tasks(runtime)

    def settled(self, runtime: Runtime) -> None:
        """Raises:
        AssertionError: A service is dead, or something was left over.
        """
        names = {thread.name for thread in threading.enumerate()}
        dead = [name for name in SERVICES if name not in names]
        services = runtime.supervisor.status()
        dead += [one.name for one in services if one.name in self._alive and not one.running]
        assert not dead, f"dead services: {dead}"
        failed = {one.name: one.last_error for one in services if one.failures}
        assert not failed, f"services that failed: {failed}"
        deadline = time.monotonic() + SETTLED
        while left := self._left(runtime):
            assert time.monotonic() < deadline, f"left over: {left}"
            time.sleep(0.02)

    def _left(self, runtime: Runtime) -> list[str]:
        left = [f"running turn {turn.lease.turn_id}" for turn in runtime.running.all()]
        left += [f"thread {name}" for name in _threads() - self._threads]
        left += [f"task {task}" for task in _tasks(runtime) - self._tasks]
        for key in self._redis.scan_iter(count=10_000):
            name = key.decode("utf-8", "replace")
            if name.endswith((":lease", ":inbox", ":journal", ":due")):
                left.append(f"key {name}")
            elif self._redis.ttl(key) == -1 and not _lasts(name):
                left.append(f"key for ever {name}")
        return left


def _lasts(key: str) -> bool:
    return key.startswith(LASTING) or key.endswith((":claimed", ":ends")) or ":list:" in key


def _levels() -> dict[str, int]:
    names = ["", "mcp", *logging.root.manager.loggerDict]
    return {name: logging.getLogger(name or None).level for name in names}


def _threads() -> Counter[str]:
    """Threads by what they are for; those that serve anybody may come and stay."""
    names = (thread.name.rstrip("0123456789_-") for thread in threading.enumerate())
    lasting = ("agentapi-store", "carrier", "asyncio", "ThreadPoolExecutor", "Thread")
    return Counter(name for name in names if not name.startswith(lasting))


def _tasks(runtime: Runtime) -> Counter[str]:
    """Tasks of the event loop by what they run."""

    async def names() -> Counter[str]:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)

    loop = runtime._loop.loop
    return asyncio.run_coroutine_threadsafe(names(), loop).result(BOUND_OF_LOOP)


BOUND_OF_LOOP: Final = 60.0
"""Seconds in which the event loop must answer."""
