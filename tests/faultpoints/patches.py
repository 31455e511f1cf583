"""Fault points around what crosses a process's edge: scripts, commands, messages, rounds."""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import celery
import kombu.transport.virtual
import redis
import redis.asyncio
import redis.asyncio.client
import redis.client

from agentapi import supervision
from agentapi.redis.aio import AsyncScripts
from agentapi.redis.scripts import Scripts
from tests.faultpoints.effects import Kind
from tests.faultpoints.injector import await_at, call_at

OURS: Final = ("agentapi.", "workers.", "orchestrator.")
PLUMBING: Final = frozenset({"workers.dispatch", "orchestrator.broker"})
"""Modules through which many send: their points are named after the callers."""

DEPTH: Final = 40

supervisors: weakref.WeakSet[supervision.Supervisor] = weakref.WeakSet()
"""Those of this process."""


def install() -> None:
    """Wrap them in this process."""
    # What brings a conversation back between two of them has points of its own.
    wrap(Scripts, "_call", lambda _, name, *__: f"{Kind.SCRIPT} {name}")
    wrap(Scripts, "call_many", lambda _, name, *__: f"{Kind.SCRIPT} {name}")
    wrap_async(AsyncScripts, "_call", lambda _, name, *__: f"{Kind.SCRIPT} gateway {name}")
    wrap(redis.Redis, "execute_command", lambda _, name, *__: _command(str(name)))
    wrap(redis.client.Pipeline, "execute", lambda *_: _command("pipeline"))
    wrap_async(redis.asyncio.Redis, "execute_command", lambda _, name, *__: _command(str(name)))
    wrap_async(redis.asyncio.client.Pipeline, "execute", lambda *_: _command("pipeline"))
    wrap(celery.Celery, "send_task", lambda *_: _by_caller(Kind.PUBLISH))
    wrap(kombu.transport.virtual.Channel, "queue_declare", lambda *_: _by_caller(Kind.BROKER))
    wrap(supervision.Service, "progress", lambda service: f"{Kind.STEP} {service.name}")
    made = supervision.Supervisor.__init__

    def make(self: supervision.Supervisor, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        supervisors.add(self)

    supervision.Supervisor.__init__ = make  # type: ignore[method-assign]


def wrap(owner: Any, method: str, point_of: Callable[..., str | None]) -> None:
    """Make each call of a method a point. Who has no name for it is not ours."""
    original = getattr(owner, method)

    @functools.wraps(original)
    def pointed(*args: Any, **options: Any) -> Any:
        point = point_of(*args)
        if point is None:
            return original(*args, **options)
        return call_at(point, lambda: original(*args, **options), whole=True)

    setattr(owner, method, pointed)


def wrap_async(owner: Any, method: str, point_of: Callable[..., str | None]) -> None:
    """The same for a method that is awaited."""
    original = getattr(owner, method)

    @functools.wraps(original)
    async def pointed(*args: Any, **options: Any) -> Any:
        point = point_of(*args)
        if point is None:
            return await original(*args, **options)
        return await await_at(point, lambda: original(*args, **options), whole=True)

    setattr(owner, method, pointed)


def _command(name: str) -> str | None:
    """Of our own code; Celery's and kombu's commands are their affair."""
    caller = _caller(frozenset())
    return None if caller is None else f"{Kind.COMMAND} {name.split(' ')[0]} in {caller}"


def _by_caller(kind: Kind) -> str | None:
    caller = _caller(PLUMBING)
    return None if caller is None else f"{kind} in {caller}"


def _caller(passed_over: frozenset[str]) -> str | None:
    """The function of ours that is nearest on the stack."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(DEPTH):
        if frame is None:
            return None
        module = frame.f_globals.get("__name__", "")
        if module.startswith(OURS) and module not in passed_over:
            return f"{module}.{frame.f_code.co_qualname}"
        frame = frame.f_back
    return None
