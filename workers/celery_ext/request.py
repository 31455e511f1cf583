"""Celery's request of a turn's task, which shows Flower how the turn ended."""

from __future__ import annotations

import time
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery import signals
from celery.worker.request import Request
from celery.worker.state import task_ready

from workers.celery_ext.outcomes import Told, TurnRevoked
from workers.turns.summary import Summary


class TurnRequest(Request):
    """Sends the event that fits the turn's outcome, with its summary, without a traceback."""

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Handle what the task raised."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if not isinstance(error, Told):
            super().on_failure(exc_info, send_failed_event, return_ok)  # type: ignore[no-untyped-call]
            return
        # Celery's own handler would send no event for an ignored task, and the others without the
        # summary. Its acknowledgement is not needed: the message was acknowledged at the start.
        task_ready(self)
        self.send_event(error.event, **self._fields(error))  # type: ignore[no-untyped-call]
        if isinstance(error, TurnRevoked):
            signals.task_revoked.send(
                sender=self.task,
                request=self._context,
                terminated=False,
                signum=None,
                expired=False,
            )

    def _fields(self, error: Told) -> dict[str, Any]:
        return {
            "result": repr(_first_things_first(error.summary)),
            "exception": repr(error),
            "traceback": "",
            "runtime": time.time() - (self.time_start or time.time()),
        }


def _first_things_first(summary: Summary) -> Summary:
    """The summary with the important fields first: Flower's list cuts off the end."""
    first: Summary = {
        name: summary[name] for name in ("status", "error", "seconds") if name in summary
    }
    return {**first, **summary}
