"""What a worker tells of itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.control import Panel

from agentapi import Agent, tool
from tests.faults import until
from tests.integration.fleet import Fleet

go = threading.Event()


@tool
def hang() -> str:
    """Hang."""
    go.wait(100)
    return "done"


def ask(fleet: Fleet) -> dict[str, Any]:
    answer: dict[str, Any] = Panel.data["services"](
        SimpleNamespace(app=fleet.app, consumer=SimpleNamespace(task_consumer=None))
    )
    return answer


def test_services_are_told_as_plain_json(
    make_fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.upkeep.tool_places.STUCK_AFTER", 0.01)
    monkeypatch.setenv("AGENTAPI_TOOL_THREADS", "1")
    fleet = make_fleet(agents=[Agent(name="hangs", provider="offline", tools=[hang])])
    told = ask(fleet)
    assert json.loads(json.dumps(told)) == told
    until(lambda: sum(service["running"] for service in ask(fleet)["services"]) == 7)
    told = ask(fleet)
    assert {service["name"]: service["running"] for service in told["services"]} == {
        "agentapi-cancellations": True,
        "agentapi-checks": True,
        "agentapi-loop": True,
        "agentapi-liveness": True,
        "agentapi-events": True,
        "agentapi-heartbeat": True,
        "agentapi-sweep": True,
        "agentapi-isolation": False,
    }
    assert told["accepting"]
    go.clear()
    turn = fleet.enqueue("hangs", "/hang")
    thread = threading.Thread(target=lambda: fleet.execute(turn))
    thread.start()
    try:
        until(lambda: not ask(fleet)["accepting"])
        told = ask(fleet)
        assert (told["turns"]["running"], told["tool_threads"]["taken"]) == (1, 1)
    finally:
        go.set()
        thread.join()
    until(lambda: ask(fleet)["accepting"])
