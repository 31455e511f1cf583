"""Real worker processes: start, refusal, stop, kill, streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentapi import EventType, TurnStatus
from agentapi.errors import TurnCancelled, TurnFailed, TurnTimeout
from orchestrator import CancelOutcome, Orchestrator
from orchestrator.stack import Stack
from tests.faults import until
from tests.gate import Gate


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.agents",),
        workers=2,
        heartbeat=0.5,
        dispatch_grace=1,
        shutdown_grace=1,
        unknown_agent_wait=0.1,
        flower=False,
    ) as running:
        yield running


def test_a_stream_shows_the_text_as_it_arrives(orchestrator: Orchestrator) -> None:
    handle = orchestrator.enqueue("slow", "one two three four", stream=True)
    events = list(handle.events(timeout=150))
    assert [event.number for event in events] == list(range(len(events)))
    deltas = [event.data["text"] for event in events if event.type is EventType.DELTA]
    assert len(deltas) > 1
    assert "".join(deltas) == handle.result().text == "You said: one two three four"
    middle = events[2].number
    assert list(handle.events(after=middle)) == events[3:]


def test_an_agent_that_no_worker_knows(orchestrator: Orchestrator) -> None:
    handle = orchestrator.enqueue("nobody", "hi")
    with pytest.raises(
        TurnFailed, match=r"agent 'nobody' is not registered.*AGENTAPI_AGENTS"
    ) as caught:
        handle.result(timeout=150)
    assert caught.value.error_code == "unknown_agent"


def test_a_key_that_is_missing_names_its_variable(orchestrator: Orchestrator) -> None:
    handle = orchestrator.enqueue("keyless", "hi")
    with pytest.raises(TurnFailed, match="OPENAI_API_KEY is not set") as caught:
        handle.result(timeout=150)
    assert caught.value.error_code == "provider_misconfigured"


def test_a_tool_that_raises_does_not_end_the_turn(orchestrator: Orchestrator) -> None:
    handle = orchestrator.enqueue("tools", "/broken {}")
    assert "RuntimeError: out of paper" in handle.result(timeout=150).text


def test_arguments_that_do_not_fit(orchestrator: Orchestrator) -> None:
    handle = orchestrator.enqueue("tools", '/nap {"seconds": "long"}')
    assert "invalid arguments: seconds" in handle.result(timeout=150).text


def test_a_timeout_leaves_the_turn_running_and_cancel_stops_it(
    orchestrator: Orchestrator,
) -> None:
    handle = orchestrator.enqueue("tools", '/nap {"seconds": 60}', conversation_id="cancel")
    behind = orchestrator.enqueue("tools", "and now?", conversation_id="cancel")
    with pytest.raises(TurnTimeout):
        handle.result(timeout=0.5)
    until(lambda: handle.status() is TurnStatus.RUNNING)
    assert handle.cancel() is CancelOutcome.REQUESTED
    with pytest.raises(TurnCancelled):
        handle.result(timeout=150)
    assert behind.result(timeout=150).text == "You said: and now?"
    assert handle.cancel() is CancelOutcome.ENDED
    assert len(orchestrator.history("cancel")) == 2


def test_a_killed_worker_delays_its_turn_by_seconds(
    stack: Stack, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    handle = orchestrator.enqueue("tools", gate.message)
    until(lambda: handle.info().steps == 1)
    owner = handle.info().worker
    assert owner is not None
    victim = next(w for w in stack.workers if owner.startswith(f"{w.name}@"))
    victim.kill()
    stack.workers.remove(victim)
    gate.open()
    result = handle.result(timeout=150)
    info = handle.info()
    assert info.attempt == 2
    assert info.worker != owner
    # The response that called the tool was recorded and is not asked for again; the tool is
    # idempotent and is.
    assert result.steps == 3
    assert "released" in result.text
    lost, second = handle.timeline().attempts
    assert (lost.worker, lost.end, second.cause) == (owner, "lost", "lease_expired")
    assert [step.attempt for step in handle.timeline().steps] == [1, 2, 2]
    stack.start_worker()
    stack.wait_for_workers(2)


def test_a_tool_with_an_unknown_outcome_is_not_called_again(
    stack: Stack, orchestrator: Orchestrator
) -> None:
    handle = orchestrator.enqueue("tools", '/nap {"seconds": 60}')
    until(lambda: handle.info().steps == 1)
    owner = handle.info().worker or ""
    victim = next(w for w in stack.workers if owner.startswith(f"{w.name}@"))
    victim.kill()
    stack.workers.remove(victim)
    assert "outcome of this call is unknown" in handle.result(timeout=150).text
    stack.start_worker()
    stack.wait_for_workers(2)


def test_a_stopped_worker_hands_its_turns_back_at_once(
    stack: Stack, orchestrator: Orchestrator, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    handle = orchestrator.enqueue("tools", gate.message)
    until(lambda: handle.info().steps == 1)
    owner = handle.info().worker or ""
    victim = next(w for w in stack.workers if owner.startswith(f"{w.name}@"))
    victim.signal(signal.SIGTERM)
    until(lambda: handle.info().attempt == 2)
    gate.open()
    assert "released" in handle.result(timeout=150).text
    assert handle.info().handbacks == 1
    assert [attempt.end for attempt in handle.timeline().attempts] == ["handed_back", "completed"]
    until(lambda: victim.exit_code is not None)
    assert victim.exit_code == 0
    stack.workers.remove(victim)
    stack.start_worker()
    stack.wait_for_workers(2)


def test_a_worker_without_redis_memory_refuses_to_start(redis_url: str) -> None:
    refusal = start_worker(redis_url, AGENTAPI_MEMORY="memory")
    assert "AGENTAPI_MEMORY is 'memory': a worker needs 'redis'" in refusal
    assert "Traceback" not in refusal


def test_a_worker_refuses_an_agent_with_a_memory_of_its_own(redis_url: str) -> None:
    refusal = start_worker(redis_url, AGENTAPI_AGENTS="tests.acceptance.with_memory")
    assert "agent 'private' has a memory (InMemoryMemory)" in refusal


def test_a_worker_refuses_two_agents_of_one_name(redis_url: str) -> None:
    refusal = start_worker(redis_url, AGENTAPI_AGENTS="tests.acceptance.twins")
    assert "two agents are named 'twin'" in refusal


def start_worker(redis_url: str, **variables: str) -> str:
    """A worker that must end by itself; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers", "worker"],
        env={**os.environ, "AGENTAPI_REDIS_URL": redis_url, **variables},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=Path.cwd(),
    )
    assert done.returncode == 1
    return done.stderr
