"""Calls to a cluster whose answers come too late."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import redis
from redis.cluster import ClusterNode

from agentapi.redis.cluster import ClusterClient
from agentapi.redis.commands import Command

SAID = "what a user wrote"


def test_an_unexpected_error_of_a_call_that_was_given_up_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make: Any = ClusterNode
    node: ClusterNode = make("127.0.0.1", 1)
    client = ClusterClient([("127.0.0.1", 1)], {}, 0)
    given_up = Event()

    def ask(*_: object) -> list[object]:
        assert given_up.wait(30)
        raise ZeroDivisionError(SAID)

    threads = ThreadPoolExecutor(1)
    monkeypatch.setattr(client, "_by_node", lambda *_: ({node: [0]}, {}))
    monkeypatch.setattr(client, "_threads_of", lambda _: threads)
    monkeypatch.setattr(client, "_ask", ask)
    monkeypatch.setattr(client, "refresh", lambda: None)
    # A patience of zero would cancel a call that no thread has begun.
    with caplog.at_level(logging.ERROR):
        [answer] = client.send([Command(("GET", "a"))], patience=2)
        given_up.set()
        threads.shutdown(wait=True)
    client.close()
    assert isinstance(answer, redis.TimeoutError)
    assert "shard.fault error=ZeroDivisionError" in caplog.text
    assert SAID not in caplog.text
