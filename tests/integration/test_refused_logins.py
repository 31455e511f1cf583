"""Redis refuses the login of workers for a while, as when passwords rotate: they wait and go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from agentapi import EventType, TurnStatus
from tests.faults import until
from tests.integration.fleet import Fleet, go_on, run_in_thread


@contextmanager
def locked_out(url: str) -> Iterator[None]:
    """No new connection gets in, and the old ones are gone."""
    admin: Any = redis.Redis.from_url(url, single_connection_client=True)
    admin.ping()
    admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">secret")
    admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    try:
        yield
    finally:
        admin.execute_command("ACL", "SETUSER", "default", "nopass")
        admin.close()


def test_a_turn_outlives_refused_logins(
    make_fleet: Callable[..., Fleet], redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = make_fleet(heartbeat=0.05, lease_ttl=30, sweep_interval=0.05)
    turn = fleet.enqueue("napper", "/linger", stream=True)
    thread, results = run_in_thread(fleet, turn)
    with locked_out(redis_url):
        until(lambda: fleet.app.runtime.outage.lasts)
        go_on.set()
        # Its reply is there meanwhile, and cannot be written.
        thread.join(1.5)
        assert results == []
    thread.join(60)
    assert results[0]["status"] == "completed"
    assert fleet.turn(turn).status is TurnStatus.COMPLETED
    events = fleet.app.store.events({turn.turn_id: -1}, 0)[turn.turn_id]
    shown = "".join(e.data["text"] for e in events if e.type is EventType.DELTA)
    assert shown == fleet.turn(turn).text
    assert {s.failures for s in fleet.app.runtime.supervisor.status()} == {0}
    assert caplog.text.count("store.away") == 1
    assert "secret" not in caplog.text
