"""Celery's tracer writes a traceback of errors, and none of how turns end."""

from __future__ import annotations

from typing import Any

import pytest
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery import Celery
from celery.app import trace

from workers.celery_ext.outcomes import NothingToDo, Told, TurnFailed, TurnGoesOn, TurnRevoked
from workers.celery_ext.tracer import OutcomeInfo, spare_tracebacks

OUTCOMES = [
    NothingToDo({"status": "running"}),
    TurnRevoked({"status": "cancelled"}),
    TurnFailed({"status": "failed", "error": "internal"}),
    TurnGoesOn({"status": "parked", "seconds": 1.5}),
]


def traced(monkeypatch: pytest.MonkeyPatch, error: Exception) -> tuple[ExceptionInfo, Any]:
    """What a task's tracer gives when the task raises, and what was logged of it."""
    monkeypatch.setattr(trace, "ExceptionInfo", ExceptionInfo)
    logged: list[Any] = []
    monkeypatch.setattr(trace.logger, "log", lambda *args, **more: logged.append((args, more)))
    spare_tracebacks()
    app: Any = Celery("traced", set_as_current=False, broker="memory://")

    @app.task(name="raises", shared=False, throws=(TurnFailed,))  # type: ignore[untyped-decorator]
    def raises() -> None:
        raise error

    tracer = trace.build_tracer(raises.name, raises, app=app)
    request = {"id": "1", "hostname": "here", "delivery_info": {}}
    return tracer("1", (), {}, request)[0], logged


@pytest.mark.parametrize("error", OUTCOMES, ids=lambda error: type(error).__name__)
def test_an_outcome_has_no_traceback(monkeypatch: pytest.MonkeyPatch, error: Told) -> None:
    info, logged = traced(monkeypatch, error)
    assert isinstance(info, OutcomeInfo)
    assert (info.type, info.traceback, info.tb) == (type(error), "", None)
    found = info.exception
    assert (found.exc if isinstance(found, ExceptionWithTraceback) else found) is error
    assert all(more["exc_info"] is None for _, more in logged)


def test_an_error_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    info, _ = traced(monkeypatch, ZeroDivisionError("by nought"))
    assert info.type is ZeroDivisionError
    text = info.traceback or ""
    assert "in raises" in text
    assert "by nought" in text
