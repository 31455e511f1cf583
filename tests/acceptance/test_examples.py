"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.stack import Stack

ROOT = Path(__file__).parents[2]


def run(module: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_memory_page(redis_url: str) -> None:
    shown = run("examples.memory_page", AGENTAPI_REDIS_URL=redis_url)
    for line in (
        "You said 1 thing: My name is Ada.",
        "0 messages after the reset",
        "You said: Please summarise.",
        "add: 5 (3 steps",
        "You said: Say something long.",
        "You said 1 thing: Hello from one agent.",
    ):
        assert line in shown


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, agents=("examples.agents",), workers=1, flower=False) as stack:
        yield stack.redis_url


def test_the_producer(url: str) -> None:
    shown = run("examples.producer", AGENTAPI_REDIS_URL=url)
    assert shown == "You said: Where is order 7?\n"


def test_the_support_desk(url: str) -> None:
    assert run("examples.support_desk", AGENTAPI_REDIS_URL=url).splitlines() == [
        "support wants refund with {'order_id': '7', 'amount': 80}",
        "refund: 80.00 euros of order 7 were refunded",
        "answered by billing",
        "answered by billing",
    ]


def test_a_long_conversation() -> None:
    first, second = run("examples.long_conversation").splitlines()
    assert first.startswith("30 messages, ")
    assert int(first.split()[2]) >= 18
    assert second == "30 messages in the transcript"


def test_a_context_for_each_turn() -> None:
    assert run("examples.personal").splitlines() == [
        "You help Ann. Answer in French. Tools: my_plan, refund.",
        "You help Bob. Answer in English. Tools: my_plan.",
        "my_plan: Ann has the gold plan",
        "['refund'] must be approved",
        "invalid_context",
    ]


def test_mcp_tools() -> None:
    assert run("examples.mcp_tools").splitlines() == [
        "notes_read_note: Read a note.",
        "notes_read_note: milk, bread",
        "notes_read_note: Error executing tool read_note: there is no note 'secrets'; "
        "there are: shopping, ideas",
    ]


def test_research(url: str) -> None:
    first, second, chained, delegated = run(
        "examples.research", AGENTAPI_REDIS_URL=url
    ).splitlines()
    assert first == "gathered: You said: What is Celery?"
    assert second == "gathered: You said: What is Redis?"
    assert chained.count("You said: ") == 5
    assert chained.endswith("What follows from this? You said: In one line: You said: You said: "
                            "What is an agent?")  # fmt: skip
    assert delegated.startswith('delegated: look_into: ["You said: queues",')
