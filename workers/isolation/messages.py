"""What a worker and its watchdog say to each other: JSON, one object a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import orjson

from agentapi.stores import Wakeup


@dataclass(frozen=True, kw_only=True, slots=True)
class SuspectTurn:
    """A turn that lost its worker, to be run in a process of its own.

    Attributes:
        job: The pool's number of the task that asked for it.
        process: What the claim token of that process begins with.
        owner: The worker's name, for people.
    """

    job: int
    conversation_id: str
    turn_id: str
    agent: str
    process: str
    owner: str

    @property
    def wakeup(self) -> Wakeup:
        """What wakes another worker for it."""
        return Wakeup(conversation_id=self.conversation_id, turn_id=self.turn_id, agent=self.agent)


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
    """To the watchdog: hand all turns back at their last recorded step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Goodbye:
    """To the watchdog: the worker ends in order, and has handed back what it had."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """From the watchdog: the turn's process ended in order."""

    job: int
    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Died:
    """From the watchdog: the turn's process ended without an answer.

    Attributes:
        code: Its exit code; the negative number of the signal that killed it.
    """

    job: int
    code: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NotStarted:
    """From the watchdog: the turn still waited for a place when all were handed back."""

    job: int


Request: TypeAlias = Run | Cancel | HandBack | Goodbye
Response: TypeAlias = Answered | Died | NotStarted


def encode(message: Request | Response) -> bytes:
    """A message as a line."""
    return orjson.dumps({"type": type(message).__name__, **asdict(message)}) + b"\n"


class Lines:
    """Puts a stream of bytes together into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Request | Response]:
        """The messages that are complete now."""
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
            raise ValueError(f"{kind!r} is not a message of the watchdog")
