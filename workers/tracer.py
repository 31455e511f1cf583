"""Celery's tracer, without the text of a traceback where nobody reads one.

Celery writes the traceback of whatever a task raises as text, twice: a millisecond, more than a
whole turn costs. What `workers.outcomes` raises is no error, its traceback is always the same, and
neither Flower nor the log shows it.
"""

from __future__ import annotations

import sys
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.app import trace

from workers.outcomes import Told


class OutcomeInfo(ExceptionInfo):
    """As Celery's; of how a turn ended, it has no traceback."""

    def __init__(self, exc_info: Any = None, internal: bool = False) -> None:
        kind, error, _ = found = exc_info or sys.exc_info()
        if not isinstance(error, Told):
            super().__init__(found, internal)  # type: ignore[no-untyped-call]
            return
        self.type, self.tb, self.traceback, self.internal = kind, None, "", internal
        self.exception = ExceptionWithTraceback(error, "")  # type: ignore[no-untyped-call]


def spare_tracebacks() -> None:
    """Let this process's tracers make an `OutcomeInfo`."""
    # Celery 5.7 offers no setting for it.
    vars(trace)["ExceptionInfo"] = OutcomeInfo
