"""Collects the log records of one logger."""

from __future__ import annotations

import logging

import pytest


def logged(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    """The records of a logger only, because threads of earlier tests may log at the same time."""
    return [record for record in caplog.records if record.name == name]
