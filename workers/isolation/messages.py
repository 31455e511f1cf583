"""Messages between a worker and its watchdog: JSON, one object per line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

import orjson

from workers.turns.suspect import SuspectTurn

DONE: Final = "done"
"""Key of the observations in the result of a turn's process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """To the watchdog: fork a process that runs this turn."""

    turn: SuspectTurn


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancel:
    """To the watchdog: cancel the turn of a job."""

    job: int


@dataclass(frozen=True, kw_only=True, slots=True)
class HandBack:
    """To the watchdog: hand all turns back after their last recorded step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Goodbye:
    """To the watchdog: the worker ends normally and has handed its turns back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """From the watchdog: the turn's process ended normally."""

    job: int
    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Died:
    """From the watchdog: the turn's process ended without an answer.

    Attributes:
        code: Its exit code; if a signal killed it, the negative number of the signal.
    """

    job: int
    code: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NotStarted:
    """From the watchdog: the turn was still waiting for a slot when all were handed back."""

    job: int


Request: TypeAlias = Run | Cancel | HandBack | Goodbye
Response: TypeAlias = Answered | Died | NotStarted


def encode(message: Request | Response) -> bytes:
    """A message as a line."""
    return orjson.dumps({"type": type(message).__name__, **asdict(message)}) + b"\n"


class Lines:
    """Assembles messages from a stream of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Request | Response]:
        """Add bytes; returns the messages that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from map(_decode, lines)


def _decode(line: bytes) -> Request | Response:
    fields = orjson.loads(line)
    match fields.pop("type"):
        case "Run":
            return Run(turn=SuspectTurn(**fields["turn"]))
        case "Cancel":
            return Cancel(**fields)
        case "HandBack":
            return HandBack()
        case "Goodbye":
            return Goodbye()
        case "Answered":
            return Answered(**fields)
        case "Died":
            return Died(**fields)
        case "NotStarted":
            return NotStarted(**fields)
        case kind:
            raise ValueError(f"{kind!r} is not a message between worker and watchdog")
