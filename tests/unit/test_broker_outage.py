"""What a worker's log says about a broker that is away."""

from __future__ import annotations

import logging

import pytest
from redis import exceptions as redis_errors

from tests.logged import logged
from workers.celery_ext.broker_outage import (
    HELD,
    LONGEST_PAUSE,
    BrokerOutage,
    describe,
    quiet,
)

ADDRESS = "redis://:***@broker:6379/0"


def record(text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("celery", logging.WARNING, "", 0, text, args, None)


def test_one_line_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    outage = BrokerOutage(ADDRESS, lambda: now[0])
    pauses = [outage.failed(ConnectionRefusedError(111, "refused")) for _ in range(20)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.1, LONGEST_PAUSE)
    lasted = outage.lasts
    now[0] = 110.0 + HELD
    outage.held()
    outage.held()
    assert (lasted, outage.lasts) == (True, False)
    assert outage.failed(ConnectionRefusedError()) == 0.1
    entries = logged(caplog, "agentapi.consumer")
    names = [str(entry.msg).partition(" ")[0] for entry in entries]
    assert names == ["broker.lost", "broker.connected", "broker.lost"]
    assert "seconds=10.0" in str(entries[1].msg)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "x"), "is out of reach: connection refused; is it running"),
        (redis_errors.ConnectionError("x"), "is out of reach: ConnectionError; is it running"),
        (redis_errors.ReadOnlyError("a replica"), "refuses to work: a replica; check its log"),
        (redis_errors.OutOfMemoryError("OOM"), "refuses to work: OOM; check its log"),
    ],
)
def test_what_is_wrong(error: Exception, said: str) -> None:
    assert f"broker at {ADDRESS} {said}" in describe(error, ADDRESS)


def test_only_what_is_replaced_is_left_out() -> None:
    lost = "consumer: Connection to broker lost. Trying to re-establish the connection..."
    assert not quiet(record("%s (%r)", lost, OSError()))
    assert not quiet(record("consumer: Cannot connect to %s: %s.\n%s\n", "a", "b", "c"))
    assert not quiet(record("Frequent restarts detected: %r", OSError()))
    assert quiet(record("Received unregistered task of type %s.", "x"))
    assert quiet(record("%s (%r)", "another warning", OSError()))
