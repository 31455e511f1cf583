"""A broker that is away is told of once, and costs nobody more than time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentapi import Settings
from agentapi.broker.wire import queue_names
from agentapi.ids import create_turn_id
from agentapi.stores import Wakeup
from orchestrator.stack import start_valkey
from orchestrator.stack.processes import free_port
from workers.app import create_app
from workers.dispatch import Dispatcher


def dispatcher(settings: Settings) -> Dispatcher:
    return create_app(settings, []).dispatcher


def test_every_question_to_a_broker_that_is_away_is_answered(
    settings_for: Callable[..., Settings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    asks = dispatcher(settings_for(broker_url=url, redis_timeout=1))
    [queue] = queue_names(1)
    wakeup = Wakeup(conversation_id="c", turn_id=create_turn_id("c"), agent="a")
    for _ in range(2):
        assert not asks.holds(queue)
        assert asks.away
        assert not asks.reachable()
        asks.send(wakeup)
    assert caplog.text.count("broker.away") == 1
    broker, _ = start_valkey(tmp_path / "broker", port)
    try:
        assert asks.reachable()
        asks.send(wakeup)
        assert not asks.away
        assert "broker.back" in caplog.text
    finally:
        broker.stop()
