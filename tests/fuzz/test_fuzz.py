"""Some examples, the same every time; ``make fuzz`` tries others for as long as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.stack import start_valkey
from tests.fuzz.bench import Bench, bench
from tests.fuzz.rounds import run_round

NAMES = ("chat", "gemini", "tools", "functions", "mcp", "records", "producers", "clients")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """On a Redis of its own: it is emptied and damaged."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    valkey, url = start_valkey(folder)
    try:
        with bench(url, folder) as running:
            yield running
    finally:
        valkey.stop()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_malformed_input_harms_nobody_else(made: Bench, name: str) -> None:
    target = made.targets[name]
    run_round(made.rig, target, None, target.examples, lambda: None)


def test_all_targets_are_tried(made: Bench) -> None:
    assert set(made.targets) == set(NAMES)
