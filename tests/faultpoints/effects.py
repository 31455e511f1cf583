"""What can go wrong at a point, and the errors that stand for it."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

import kombu.exceptions
import redis.exceptions

HANG: Final = 2.0
"""Seconds that a hanging point takes: twice as long as a lease of these tests."""


class Unforeseen(Exception):
    """An error that no code expects."""


class UnforeseenBase(BaseException):
    """The same, past every `except Exception`: what a Rust extension's panic is."""


class Kind(StrEnum):
    """What a point is."""

    SCRIPT = "script"
    """One run of a Lua script (or several of the same, together)."""
    COMMAND = "command"
    """A command or pipeline that Redis is sent besides the scripts."""
    PUBLISH = "publish"
    """A message to the broker."""
    BROKER = "broker"
    """A question to the broker."""
    AWAIT = "await"
    """An `await`, `async for` or `async with`."""
    HAND_OFF = "hand-off"
    """Work given to another thread, the event loop or a new task."""
    BEGIN = "begin"
    """That work, where it begins."""
    STEP = "step"
    """One round of a background service."""


REMOTE: Final = frozenset({Kind.SCRIPT, Kind.COMMAND, Kind.PUBLISH, Kind.BROKER})
"""Kinds that cross the network, where connections break and answers get lost."""


class Effect(StrEnum):
    """What happens at the point."""

    KILL = "kill"
    """The process is killed before it does what it was about to do."""
    KILL_AFTER = "kill after"
    """The process is killed when it was done, before anybody knows."""
    EXCEPTION = "exception"
    BASE_EXCEPTION = "base exception"
    REDIS_ERROR = "redis error"
    TIMEOUT = "timeout"
    CANCEL = "cancel"
    HANG = "hang"
    """It takes longer than the lease, and is done then."""
    LOST_ANSWER = "lost answer"
    """It is done, and an error says that the connection broke."""

    @property
    def kills(self) -> bool:
        return self in (Effect.KILL, Effect.KILL_AFTER)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault: the effect, at one passage of one point."""

    point: str
    occurrence: int
    effect: Effect

    @property
    def kind(self) -> Kind:
        return Kind(self.point.partition(" ")[0])

    def __str__(self) -> str:
        return f"{self.effect} at {self.point} #{self.occurrence}"

    def to_json(self) -> dict[str, Any]:
        return {"point": self.point, "occurrence": self.occurrence, "effect": self.effect.value}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(**{**data, "effect": Effect(data["effect"])})


def error_of(fault: Fault) -> BaseException:
    """What the point raises instead of, or after, what it would do."""
    kind = fault.kind
    match fault.effect:
        case Effect.EXCEPTION:
            return Unforeseen("at a fault point")
        case Effect.BASE_EXCEPTION:
            return UnforeseenBase("at a fault point")
        case Effect.CANCEL:
            return concurrent.futures.CancelledError()
        case Effect.TIMEOUT:
            return (
                redis.exceptions.TimeoutError("at a fault point")
                if _redis(kind)
                else TimeoutError()
            )
        case Effect.LOST_ANSWER if kind in (Kind.PUBLISH, Kind.BROKER):
            return kombu.exceptions.OperationalError("the answer is lost")
        case Effect.LOST_ANSWER if not _redis(kind):
            return ConnectionResetError("the answer is lost")
        case _:
            return redis.exceptions.ConnectionError("at a fault point")


def _redis(kind: Kind) -> bool:
    return kind in (Kind.SCRIPT, Kind.COMMAND)


def die() -> None:
    """End this process as the kernel does: nothing is flushed, nobody is told."""
    os.kill(os.getpid(), signal.SIGKILL)
    # The thread may run a little further.
    time.sleep(60)
