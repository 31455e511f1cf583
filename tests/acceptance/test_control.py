"""Celery's remote control of workers, and who takes what from the broker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentapi import TurnStatus
from agentapi.broker.wire import TASK_NAME
from agentapi.errors import TurnCancelled
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Stack
from tests.faults import until
from tests.gate import Gate


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.agents",),
        workers=2,
        concurrency=1,
        queues=1,
        # A wake-up that a busy worker keeps would be missed for longer than any test waits.
        dispatch_grace=300,
        heartbeat=0.5,
        shutdown_grace=1,
        flower=False,
    ) as running:
        yield running


NAPS: list[TurnHandle] = []


def nap(orchestrator: Orchestrator, conversation_id: str | None = None) -> TurnHandle:
    """A turn that runs until it is cancelled."""
    handle = orchestrator.enqueue("tools", '/nap {"seconds": 300}', conversation_id=conversation_id)
    NAPS.append(handle)
    return handle


@pytest.fixture(autouse=True)
def _leave_nothing_running(orchestrator: Orchestrator) -> Iterator[None]:
    """A test that fails must not keep the workers from those that follow."""
    yield
    for handle in NAPS:
        handle.cancel()
    until(lambda: all(handle.status().ended for handle in NAPS))
    NAPS.clear()


def running(*handles: TurnHandle) -> bool:
    return all(handle.status() is TurnStatus.RUNNING for handle in handles)


def task_ids(celery: Any) -> dict[str, str]:
    """The ids of the tasks that workers carry out, by their turn."""
    answers = celery.control.inspect(timeout=30, limit=2).active()
    ids = [task["id"] for tasks in answers.values() for task in tasks]
    return {task_id.partition(".")[0]: task_id for task_id in ids}


def task_id_of(celery: Any, handle: TurnHandle) -> str:
    """The id of the task that carries a turn out, once one does."""
    until(lambda: handle.turn_id in task_ids(celery))
    return task_ids(celery)[handle.turn_id]


def waiting(stack: Stack) -> int:
    """Messages that no worker has taken."""
    with Orchestrator(stack.settings) as producer:
        client: Any = producer.store._client  # type: ignore[attr-defined]
        return int(client.llen("agentapi:broker:agentapi.0"))


def answers_to(celery: Any, command: str, **arguments: Any) -> list[dict[str, str]]:
    replies = celery.control.broadcast(
        command, arguments=arguments, reply=True, timeout=30, limit=2
    )
    return [answer for reply in replies for answer in reply.values()]


def test_no_turn_waits_in_a_busy_worker_beside_an_idle_one(
    stack: Stack, orchestrator: Orchestrator, celery: Any
) -> None:
    busy = nap(orchestrator)
    until(lambda: running(busy))
    for _ in range(12):
        assert orchestrator.enqueue("tools", "hi").result(timeout=150).text == "You said: hi"
    busy.cancel()
    with pytest.raises(TurnCancelled):
        busy.result(timeout=150)


def test_what_workers_cannot_start_stays_in_the_broker(
    stack: Stack, orchestrator: Orchestrator, celery: Any
) -> None:
    naps = [nap(orchestrator) for _ in range(2)]
    until(lambda: running(*naps))
    more = [nap(orchestrator) for _ in range(5)]
    # The sweep may have sent one of them again meanwhile.
    assert waiting(stack) >= 5
    reserved = celery.control.inspect(timeout=30, limit=2).reserved()
    assert list(reserved.values()) == [[], []]
    # The places of those that end are taken at once, not with the next sign of life.
    for handle in naps:
        handle.cancel()
    until(lambda: sum(handle.status() is TurnStatus.RUNNING for handle in more) == 2)
    assert waiting(stack) >= 3
    for handle in more:
        handle.cancel()
    until(lambda: all(handle.status().ended for handle in more))


def test_revoking_a_running_turns_task_cancels_the_turn_and_blocks_nothing(
    orchestrator: Orchestrator, celery: Any
) -> None:
    first = nap(orchestrator, "revoke:1")
    behind = orchestrator.enqueue("tools", "and now?", conversation_id="revoke:1")
    celery.control.revoke(task_id_of(celery, first))
    with pytest.raises(TurnCancelled):
        first.result(timeout=150)
    assert behind.result(timeout=150).text == "You said: and now?"
    assert not any(celery.control.inspect(timeout=30, limit=2).revoked().values())


def test_terminating_a_running_turns_task_cancels_the_turn(
    orchestrator: Orchestrator, celery: Any
) -> None:
    for command in ("revoke", "terminate"):
        first = nap(orchestrator, "terminate:1")
        behind = orchestrator.enqueue("tools", "and now?", conversation_id="terminate:1")
        task_id = task_id_of(celery, first)
        if command == "revoke":
            celery.control.revoke(task_id, terminate=True, signal="SIGKILL")
        else:
            celery.control.terminate(task_id)
        with pytest.raises(TurnCancelled):
            first.result(timeout=150)
        assert behind.result(timeout=150).text == "You said: and now?"


def test_revoking_a_waiting_turns_task_cancels_it_and_its_conversation_goes_on(
    orchestrator: Orchestrator, celery: Any
) -> None:
    busy = [nap(orchestrator) for _ in range(2)]
    until(lambda: running(*busy))
    waits = orchestrator.enqueue("tools", "hi", conversation_id="revoke:2")
    behind = orchestrator.enqueue("tools", "and now?", conversation_id="revoke:2")
    # Nobody but the broker knows the task's id: a turn's own will do.
    celery.control.revoke(waits.turn_id)
    with pytest.raises(TurnCancelled):
        waits.result(timeout=150)
    for handle in busy:
        handle.cancel()
    assert behind.result(timeout=150).text == "You said: and now?"


def test_revoking_what_has_ended_or_never_was_is_harmless(
    orchestrator: Orchestrator, celery: Any
) -> None:
    handle = orchestrator.enqueue("tools", "hi", conversation_id="revoke:3")
    handle.result(timeout=150)
    celery.control.revoke([f"{handle.turn_id}.00000000", "000-" + "0" * 32, "a-task-of-others"])
    assert handle.status() is TurnStatus.COMPLETED
    again = orchestrator.enqueue("tools", "hi", conversation_id="revoke:3")
    assert again.result(timeout=150).text == "You said: hi"


@pytest.mark.parametrize(
    ("command", "arguments", "reason"),
    [
        ("rate_limit", {"task_name": TASK_NAME, "rate_limit": "1/m"}, "AGENTAPI_PROVIDER_LIMITS"),
        ("time_limit", {"task_name": TASK_NAME, "hard": 1}, "AGENTAPI_TURN_TIMEOUT"),
        ("pool_restart", {}, "pool_grow"),
        ("autoscale", {"max": 8, "min": 2}, "AGENTAPI_CONCURRENCY"),
        ("pool_shrink", {"n": 1}, "the limit of 1 turns cannot be reduced by 1"),
        ("pool_grow", {"n": -1}, "not a valid number of turns"),
    ],
)
def test_what_would_do_harm_is_refused_with_a_reason(
    orchestrator: Orchestrator,
    celery: Any,
    command: str,
    arguments: dict[str, Any],
    reason: str,
) -> None:
    answers = answers_to(celery, command, **arguments)
    assert len(answers) == 2
    for answer in answers:
        assert reason in answer["error"]
    assert orchestrator.enqueue("tools", "hi").result(timeout=150)


def test_pools_grow_and_shrink(orchestrator: Orchestrator, celery: Any) -> None:
    naps = [nap(orchestrator) for _ in range(4)]
    until(lambda: sum(handle.status() is TurnStatus.RUNNING for handle in naps) == 2)
    assert answers_to(celery, "pool_grow", n=1) == [{"ok": "up to 2 turns at the same time"}] * 2
    until(lambda: running(*naps))
    assert answers_to(celery, "pool_shrink", n=1) == [{"ok": "up to 1 turns at the same time"}] * 2
    more = nap(orchestrator)
    for handle in naps:
        handle.cancel()
    until(lambda: running(more))
    until(lambda: all(handle.status().ended for handle in naps))
    one_more = nap(orchestrator)
    until(lambda: running(one_more))
    last = nap(orchestrator)
    assert list(celery.control.inspect(timeout=30, limit=2).reserved().values()) == [[], []]
    assert last.status() is TurnStatus.QUEUED
    for handle in (more, one_more, last):
        handle.cancel()
    until(lambda: all(handle.status().ended for handle in (more, one_more, last)))


def test_a_remote_shutdown_is_a_warm_one(
    stack: Stack, orchestrator: Orchestrator, celery: Any, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    handle = orchestrator.enqueue("tools", gate.message)
    until(lambda: handle.info().steps == 1)
    owner = handle.info().worker or ""
    worker = next(w for w in stack.workers if owner.startswith(f"{w.name}@"))
    celery.control.shutdown(destination=[owner])
    until(lambda: handle.info().handbacks)
    gate.open()
    assert "released" in handle.result(timeout=150).text
    assert handle.info().handbacks == 1
    until(lambda: worker.exit_code is not None)
    assert worker.exit_code == 0
    stack.workers.remove(worker)
    stack.start_worker()
    stack.wait_for_workers(2)


@pytest.mark.parametrize("option", ["--autoscale=8,2", "--pool=threads"])
def test_options_under_which_turns_cannot_be_carried_out_are_refused(
    redis_url: str, option: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers", "worker", option],
        env={
            **os.environ,
            "AGENTAPI_REDIS_URL": redis_url,
            "AGENTAPI_AGENTS": "tests.acceptance.agents",
        },
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 1
    assert f"agentapi worker cannot start: {option.partition('=')[0]}" in done.stderr
    assert "Traceback" not in done.stderr
