"""Exceptions by which a task tells Celery, its events and Flower how its turn ended.

A task that returns counts as SUCCESS, so only a completed turn returns. Every other outcome is
raised, with numbers and codes but without content.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import ClassVar

from celery.exceptions import Ignore, Retry

from workers.turns.summary import Summary


class Told(Exception):
    """An outcome other than completion.

    Attributes:
        summary: Flower shows it as the task's result.
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
    """FAILURE: the task itself failed; its turn may still end well."""

    def __repr__(self) -> str:
        return f"TaskBroken({self.summary['error']!r})"

    __str__ = __repr__


class TurnRevoked(Told, Ignore):
    """REVOKED: the turn was cancelled."""

    event = "task-revoked"


class NothingToDo(Told, Ignore):
    """SKIPPED, a state of our own: the turn of the wake-up has ended, waits, or runs elsewhere.

    None of Celery's states fits: REJECTED never shows once a task has started.
    """

    event = "task-skipped"


class TurnGoesOn(Told, Retry):
    """RETRY: the turn has not ended; another task continues it."""

    event = "task-retried"

    def __init__(self, summary: Summary) -> None:
        seconds = summary.get("seconds")
        when = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
        Retry.__init__(self, summary["status"], when=when)
        self.summary = summary

    def __repr__(self) -> str:
        at = f", continues at {self.when:%Y-%m-%dT%H:%M:%SZ}" if self.when else ""
        return f"TurnGoesOn({self.summary['status'] + at!r})"

    __str__ = __repr__


def told(summary: Summary) -> Summary:
    """Return or raise the result of a task whose turn ran here.

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
            # Another wake-up of the same turn is being handled here.
            raise NothingToDo(summary)
        case _:
            raise TurnGoesOn(summary)


def told_of_refusal(summary: Summary) -> Summary:
    """Raise the result of a task that found nothing to run.

    Raises:
        Told: Always. The task that runs the turn reports its outcome.
    """
    match summary["status"]:
        case "cancelled":
            raise TurnRevoked(summary)
        case "completed" | "failed" | "queued" | "running" | "parked" | "missing":
            raise NothingToDo(summary)
        case _:
            # The wake-up was passed on, or Redis is unreachable and the sweep will send another.
            raise TurnGoesOn(summary)


def broken(error: BaseException) -> TaskBroken:
    """The outcome for an unexpected error: its type only, since its text may quote users."""
    return TaskBroken({"status": "broken", "error": type(error).__name__})
