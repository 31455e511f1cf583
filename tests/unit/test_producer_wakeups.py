"""A producer tells of a broker that is away once an outage."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from agentapi import load_settings
from agentapi.ids import create_turn_id
from agentapi.stores import Wakeup
from orchestrator.broker import CeleryWakeups
from tests.logged import logged


class App:
    """Celery's app with a broker that comes and goes."""

    def __init__(self) -> None:
        self.away = False
        self.sent = 0

    def producer_or_acquire(self) -> Any:
        return nullcontext(None)

    def send_task(self, **_: Any) -> None:
        if self.away:
            raise OperationalError("connection refused")
        self.sent += 1


def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    wakeups = CeleryWakeups(load_settings())
    wakeups.close()
    wakeups._app = app = App()
    one = [Wakeup(conversation_id="c", turn_id=create_turn_id("c"), agent="a")]
    with caplog.at_level(logging.INFO):
        for app.away in (False, True, True, True, False, False, True):
            wakeups.send(one)
    records = logged(caplog, "agentapi.broker")
    actions = [record.getMessage().split()[0] for record in records]
    assert actions == ["wakeups.delayed", "wakeups.sent_again", "wakeups.delayed"]
    assert app.sent == 3
