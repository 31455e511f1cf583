"""What a task raises so that Celery, its events and Flower tell the truth about its turn.

A task that returns is SUCCESS. Only a turn that completed returns; every other end is raised, with
numbers and codes and nothing that people say.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import ClassVar

from celery.exceptions import Ignore, Retry

from workers.turns.summary import Summary


class Told(Exception):
    """A turn's end other than its completion.

    Attributes:
        summary: What Flower shows as the task's result.
        event: Celery's event for it.
    """

    event: ClassVar[str]

    def __init__(self, summary: Summary) -> None:
        super().__init__(summary)
        self.summary = summary

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary['status']!r})"

    __str__ = __repr__


class TurnFailed(Told):
    """FAILURE: the turn failed."""

    event = "task-failed"

    def __repr__(self) -> str:
        return f"TurnFailed({self.summary.get('error', 'internal')!r})"

    __str__ = __repr__


class TaskBroken(TurnFailed):
    """FAILURE: the task itself failed, whatever becomes of its turn."""

    def __repr__(self) -> str:
        return f"TaskBroken({self.summary['error']!r})"

    __str__ = __repr__


class TurnRevoked(Told, Ignore):
    """REVOKED: the turn was cancelled."""

    event = "task-revoked"


class NothingToDo(Told, Ignore):
    """SKIPPED, a state of our own: the wake-up came for a turn that ended, waits or runs elsewhere.

    None of Celery's states is true of it: REJECTED never shows once a task has started.
    """

    event = "task-skipped"


class TurnGoesOn(Told, Retry):
    """RETRY: the turn has not ended; another task carries it on."""

    event = "task-retried"

    def __init__(self, summary: Summary) -> None:
        seconds = summary.get("seconds")
        when = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
        Retry.__init__(self, summary["status"], when=when)
        self.summary = summary

    def __repr__(self) -> str:
        at = f", goes on at {self.when:%Y-%m-%dT%H:%M:%SZ}" if self.when else ""
        return f"TurnGoesOn({self.summary['status'] + at!r})"

    __str__ = __repr__


def told(summary: Summary) -> Summary:
    """The result of a task whose turn this worker carried out.

    Raises:
        Told: The turn did not complete.
    """
    match summary["status"]:
        case "completed":
            return summary
        case "failed":
            raise TurnFailed(summary)
        case "cancelled":
            raise TurnRevoked(summary)
        case "suspect":
            # Another wake-up of the same turn is carried out here.
            raise NothingToDo(summary)
        case _:
            raise TurnGoesOn(summary)


def told_of_refusal(summary: Summary) -> Summary:
    """The result of a task that found nothing to carry out.

    Raises:
        Told: Always: what became of the turn is told by the task that carried it out.
    """
    match summary["status"]:
        case "cancelled":
            raise TurnRevoked(summary)
        case "completed" | "failed" | "queued" | "running" | "parked" | "missing":
            raise NothingToDo(summary)
        case _:
            # The wake-up was passed on, or the store is away and the sweep sends another.
            raise TurnGoesOn(summary)


def broken(error: BaseException) -> TaskBroken:
    """What stands for an error that nobody expected. Its text may quote people: only its type."""
    return TaskBroken({"status": "broken", "error": type(error).__name__})
