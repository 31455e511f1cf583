"""Celery's tracer, without formatting tracebacks that are never read.

Celery formats the traceback of every exception that a task raises, twice. That takes a millisecond,
more than a whole turn. The exceptions in `workers.celery_ext.outcomes` only tell Celery how a turn
ended: their traceback is always the same, and neither Flower nor the log shows it.
"""

from __future__ import annotations

import sys
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.app import trace

from workers.celery_ext.outcomes import Told


class OutcomeInfo(ExceptionInfo):
    """Celery's own, except that the outcome of a turn has no traceback."""

    def __init__(self, exc_info: Any = None, internal: bool = False) -> None:
        kind, error, _ = found = exc_info or sys.exc_info()
        if not isinstance(error, Told):
            super().__init__(found, internal)  # type: ignore[no-untyped-call]
            return
        self.type, self.tb, self.traceback, self.internal = kind, None, "", internal
        self.exception = ExceptionWithTraceback(error, "")  # type: ignore[no-untyped-call]


def spare_tracebacks() -> None:
    """Make Celery use `OutcomeInfo` in this process."""
    # Celery 5.7 offers no setting for it.
    vars(trace)["ExceptionInfo"] = OutcomeInfo
