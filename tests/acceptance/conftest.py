"""What the tests share that have a stack for the whole module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator import Orchestrator
from orchestrator.stack import Stack


@pytest.fixture(scope="module")
def orchestrator(stack: Stack) -> Iterator[Orchestrator]:
    """A producer for the module's `stack`."""
    with Orchestrator(stack.settings) as running:
        yield running
