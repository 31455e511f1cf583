"""Fixtures for tests with one stack for the whole module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator import Orchestrator
from orchestrator.broker import producer_app
from orchestrator.stack import Stack


@pytest.fixture(scope="module")
def orchestrator(stack: Stack) -> Iterator[Orchestrator]:
    """A producer for the module's `stack`."""
    with Orchestrator(stack.settings) as running:
        yield running


@pytest.fixture(scope="module")
def celery(stack: Stack) -> Iterator[Any]:
    """A Celery app that reaches the workers of the module's `stack`."""
    app: Any = producer_app(stack.settings)
    yield app
    app.close()
