"""What one part of the program has logged."""

from __future__ import annotations

import logging

import pytest


def logged(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    """The records of a logger. Threads that earlier tests have started may log meanwhile."""
    return [record for record in caplog.records if record.name == name]
