"""Suppresses what Celery's worker prints in addition to its log: a banner, and a line at each
signal."""

from __future__ import annotations

from typing import Any

from celery.apps import worker as program


def print_nothing(worker: Any) -> None:
    """Make a worker print nothing. Its log records when it starts and stops.

    Args:
        worker: Celery's worker, before it starts.
    """
    worker.quiet = True
    # Celery 5.7 offers no setting for it.
    vars(program)["safe_say"] = lambda *_, **__: None
