"""A broker that is away is told of once, and costs nobody more than time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

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
    # Not as often as there are wake-ups.
    asks.send_all([wakeup] * 100)
    assert caplog.text.count("broker.away") == 1
    broker, _ = start_valkey(tmp_path / "broker", port)
    try:
        assert asks.reachable()
        asks.send(wakeup)
        assert not asks.away
        assert "broker.back" in caplog.text
    finally:
        broker.stop()


def test_wake_ups_that_are_sent_together(settings_for: Callable[..., Settings]) -> None:
    settings = settings_for(queues=2)
    sends = dispatcher(settings)
    wakeups = [
        Wakeup(conversation_id=name, turn_id=create_turn_id(name), agent="a")
        for name in (f"c:{number}" for number in range(200))
    ]
    client: Any
    with redis.Redis.from_url(settings.broker_url) as client:

        def waiting() -> int:
            return sum(client.llen(f"agentapi:broker:{queue}") for queue in queue_names(2))

        def packets() -> int:
            """Reads of Valkey from all its clients."""
            info = client.info("stats")
            return int(info["total_reads_processed"])

        sends.send(wakeups[0])
        before = packets()
        sends.send_all(wakeups)
        # One by one there would be as many as wake-ups; a large packet is read in pieces.
        assert packets() - before < 100
        assert waiting() == 201
        # A connection that was cut meanwhile loses none.
        client.client_kill_filter(_type="normal", skipme=True)
        sends.send_all(wakeups)
        assert waiting() >= 401
        sends.send_all([])
        assert not sends.away
