"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.stack import Stack

ROOT = Path(__file__).parents[2]


def run(module: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_memory_page(redis_url: str) -> None:
    shown = run("examples.memory_page", AGENTAPI_REDIS_URL=redis_url)
    for line in (
        "You said 1 things: My name is Ada.",
        "0 messages after the reset",
        "You said: Please summarise.",
        "add: 5 (3 steps",
        "You said: Say something long.",
        "You said 1 things: Hello from one agent.",
    ):
        assert line in shown


def test_the_producer(tmp_path: Path) -> None:
    with Stack(tmp_path, agents=("examples.agents",), workers=1, flower=False) as stack:
        shown = run("examples.producer", AGENTAPI_REDIS_URL=stack.redis_url)
    assert shown == "You said: Where is order 7?\n"
