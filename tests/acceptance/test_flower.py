"""What Flower shows of turns: on its pages, in its API, in its metrics, and in Celery's events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentapi import TurnStatus
from agentapi.broker.wire import task_message
from agentapi.errors import TurnCancelled, TurnFailed
from orchestrator import Orchestrator, TurnHandle
from orchestrator.broker import producer_app
from orchestrator.stack import Stack
from tests.faults import until, worker_of
from tests.gate import Gate

SECRET = "a-word-that-only-the-user-said"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(
        tmp_path_factory.mktemp("stack"),
        agents=("tests.acceptance.agents",),
        workers=1,
        heartbeat=0.5,
        # A wake-up that a busy worker leaves for a moment is not sent again: that would be a task.
        dispatch_grace=300,
        queues=2,
        shutdown_grace=0.2,
        unknown_agent_wait=0.1,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def flower(stack: Stack) -> Iterator[httpx2.Client]:
    assert stack.flower_url is not None
    with httpx2.Client(base_url=stack.flower_url, auth=stack.flower_auth, timeout=150) as client:
        yield client


def tasks_of(flower: httpx2.Client, handle: TurnHandle) -> list[dict[str, Any]]:
    """The turn's tasks in Flower, oldest first."""
    found = flower.get("/api/tasks", params={"sort_by": "received"}).json()
    return [task for task_id, task in found.items() if task_id.partition(".")[0] == handle.turn_id]


def task_of(flower: httpx2.Client, handle: TurnHandle, state: str) -> dict[str, Any]:
    """The turn's task once it is in a state."""
    tasks: list[dict[str, Any]] = []

    def there() -> bool:
        tasks[:] = tasks_of(flower, handle)
        return any(task["state"] == state for task in tasks)

    try:
        until(there, what=f"a task in {state}")
    except AssertionError as error:
        raise AssertionError([(task["state"], task["exception"]) for task in tasks]) from error
    return next(task for task in tasks if task["state"] == state)


def count(flower: httpx2.Client, event: str) -> int:
    """How many events of a type Flower counted."""
    pattern = rf'^flower_events_total{{[^}}]*type="{event}"[^}}]*}} (\S+)$'
    found = re.findall(pattern, flower.get("/metrics").text, re.MULTILINE)
    return int(sum(float(value) for value in found))


def test_a_completed_turn_is_success_and_nothing_that_was_said_is_shown(
    stack: Stack, orchestrator: Orchestrator, flower: httpx2.Client
) -> None:
    handle = orchestrator.enqueue("tools", f'/echo {{"text": "{SECRET}"}}', conversation_id="f:1")
    assert SECRET in handle.result(timeout=150).text
    task = task_of(flower, handle, "SUCCESS")
    assert task["name"] == "tools"
    assert "f:1" in task["args"]
    assert handle.turn_id in task["args"]
    for fact in ("'status': 'completed'", "'attempt': 1", "'steps': 3", "'tokens': "):
        assert fact in task["result"]
    assert SECRET not in flower.get("/api/tasks").text
    page = flower.get(f"/task/{task['uuid']}")
    assert page.status_code == 200
    assert SECRET not in page.text
    for child in stack.children:
        assert SECRET not in child.log.read_text(errors="replace")


def test_a_failed_turn_is_failure_with_its_code_and_no_content(
    stack: Stack, orchestrator: Orchestrator, flower: httpx2.Client
) -> None:
    before = count(flower, "task-failed")
    handle = orchestrator.enqueue("faulty", SECRET)
    with pytest.raises(TurnFailed, match=SECRET):
        handle.result(timeout=150)
    task = task_of(flower, handle, "FAILURE")
    assert task["exception"] == "TurnFailed('internal')"
    assert not task["traceback"]
    # What the list has room for.
    assert task["result"].startswith("{'status': 'failed', 'error': 'internal'")
    assert task["failed"]
    assert SECRET not in flower.get(f"/task/{task['uuid']}").text
    until(lambda: count(flower, "task-failed") == before + 1)
    for child in stack.children:
        assert SECRET not in child.log.read_text(errors="replace")


def test_a_turn_for_an_unknown_agent_says_so(
    orchestrator: Orchestrator, flower: httpx2.Client
) -> None:
    handle = orchestrator.enqueue("nobody", "hi")
    with pytest.raises(TurnFailed):
        handle.result(timeout=150)
    assert task_of(flower, handle, "FAILURE")["exception"] == "TurnFailed('unknown_agent')"


def test_a_cancelled_turn_is_revoked(orchestrator: Orchestrator, flower: httpx2.Client) -> None:
    before = count(flower, "task-revoked")
    handle = orchestrator.enqueue("tools", '/nap {"seconds": 600}')
    until(lambda: handle.status() is TurnStatus.RUNNING)
    handle.cancel()
    with pytest.raises(TurnCancelled):
        handle.result(timeout=150)
    task = task_of(flower, handle, "REVOKED")
    assert task["revoked"]
    assert "'status': 'cancelled'" in task["result"]
    until(lambda: count(flower, "task-revoked") == before + 1)


def test_a_parked_turn_is_retry_until_another_task_carries_it_on(
    orchestrator: Orchestrator, flower: httpx2.Client
) -> None:
    handle = orchestrator.enqueue("tools", f'/sign {{"paper": "{SECRET}"}}')
    until(lambda: handle.status() is TurnStatus.PARKED)
    task = task_of(flower, handle, "RETRY")
    assert task["exception"] == "TurnGoesOn('parked')"
    [call] = handle.pending()
    handle.approve(call.call_id)
    assert handle.result(timeout=150).text
    assert task_of(flower, handle, "SUCCESS")["uuid"] != task["uuid"]
    assert len(tasks_of(flower, handle)) == 2


def test_a_turn_that_waits_for_its_provider_says_when_it_goes_on(
    orchestrator: Orchestrator, flower: httpx2.Client
) -> None:
    handle = orchestrator.enqueue("busy", "hi")
    task = task_of(flower, handle, "RETRY")
    assert re.fullmatch(
        r"TurnGoesOn\('parked, continues at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ'\)", task["exception"]
    )
    handle.cancel()


def assert_refused(flower: httpx2.Client, path: str, reason: str) -> None:
    """That a worker refuses what a button asks for, if need be after more than one question."""

    def said() -> bool:
        answer = flower.post(path)
        assert answer.status_code == 403
        return reason in answer.text

    until(said, what=f"a refusal with {reason!r}")


def test_flowers_buttons(stack: Stack, orchestrator: Orchestrator, flower: httpx2.Client) -> None:
    handle = orchestrator.enqueue("tools", '/nap {"seconds": 300}')
    task = task_of(flower, handle, "STARTED")
    assert flower.post(f"/api/task/revoke/{task['uuid']}").status_code == 200
    with pytest.raises(TurnCancelled):
        handle.result(timeout=150)
    assert task_of(flower, handle, "REVOKED")
    worker = handle.info().worker
    until(lambda: worker in flower.get("/api/workers?refresh=1").json())
    for button, reason in (
        (f"pool/restart/{worker}", "pool_grow"),
        (f"pool/autoscale/{worker}?min=1&max=2", "AGENTAPI_CONCURRENCY"),
        (f"pool/shrink/{worker}?n=1000", "cannot be reduced"),
    ):
        assert_refused(flower, f"/api/worker/{button}", reason)
    # A busy worker may not answer within Flower's second.
    until(lambda: flower.post(f"/api/worker/pool/grow/{worker}?n=1").status_code == 200)


def test_a_turn_that_a_stopping_worker_hands_back_goes_on(
    stack: Stack, orchestrator: Orchestrator, flower: httpx2.Client, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    handle = orchestrator.enqueue("tools", gate.message)
    until(lambda: handle.info().steps == 1)
    first = worker_of(stack, handle.info().worker)
    stack.start_worker()
    first.stop()
    stack.workers.remove(first)
    gate.open()
    assert "released" in handle.result(timeout=150).text
    task = task_of(flower, handle, "RETRY")
    assert task["exception"] == "TurnGoesOn('handed_back')"
    assert task_of(flower, handle, "SUCCESS")["uuid"] != task["uuid"]


def test_a_wake_up_that_came_for_nothing_is_skipped(
    stack: Stack, orchestrator: Orchestrator, flower: httpx2.Client
) -> None:
    handle = orchestrator.enqueue("tools", "hi", conversation_id="f:2")
    handle.result(timeout=150)
    app: Any = producer_app(stack.settings)
    succeeded = count(flower, "task-succeeded")
    app.send_task(**task_message("f:2", handle.turn_id, "tools", stack.settings))
    app.close()
    task = task_of(flower, handle, "SKIPPED")
    assert "'status': 'completed'" in task["result"]
    assert count(flower, "task-succeeded") in (succeeded, succeeded + 1)
    assert len(tasks_of(flower, handle)) == 2


def test_the_list_shows_conversations_and_results(
    orchestrator: Orchestrator, flower: httpx2.Client
) -> None:
    page = flower.get("/tasks").text
    for column in ("args", "Result", "State", "UUID"):
        assert re.search(rf"<th[^>]*>\s*{column}\s*<", page), column
    handle = orchestrator.enqueue("tools", "hi", conversation_id="f:<3>")
    handle.result(timeout=150)
    task = task_of(flower, handle, "SUCCESS")
    rows = flower.get(
        "/tasks/datatable",
        params={
            "draw": 1,
            "start": 0,
            "length": 100,
            "order[0][column]": 0,
            "order[0][dir]": "desc",
            "columns[0][data]": "received",
        },
    ).json()["data"]
    [row] = [row for row in rows if row["uuid"] == task["uuid"]]
    assert row["args"] == "f:<3>"
    assert row["result"].startswith("{'status': 'completed'")


def test_the_broker_page_shows_the_queues(flower: httpx2.Client) -> None:
    page = flower.get("/broker")
    assert page.status_code == 200
    for queue in ("agentapi.0", "agentapi.1"):
        assert queue in page.text


def test_the_queues_lengths_are_those_of_the_broker(
    stack: Stack, orchestrator: Orchestrator, flower: httpx2.Client
) -> None:
    def lengths() -> dict[str, int]:
        found = flower.get("/api/queues/length").json()["active_queues"]
        return {queue["name"]: queue["messages"] for queue in found}

    until(lambda: lengths() == {"agentapi.0": 0, "agentapi.1": 0})


def test_nobody_without_the_password_gets_in(stack: Stack) -> None:
    for path in ("/api/tasks", "/tasks", "/broker", "/", "/api/workers"):
        assert httpx2.get(f"{stack.flower_url}{path}", timeout=150).status_code == 401
    wrong = httpx2.get(f"{stack.flower_url}/api/tasks", auth=("agentapi", "x"), timeout=150)
    assert wrong.status_code == 401
