"""Both kinds of `Traffic`, on a clock that a test sets."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final

import pytest
import redis

from agentapi import load_settings
from agentapi.admission import Ask, InMemoryTraffic, RedisTraffic, Traffic
from agentapi.admission.scripts import SCRIPTS
from tests.clock import on_clock, set_clock

START: Final = 1_800_000_000_000


@dataclass
class Clock:
    """Milliseconds, for the twin here and for the scripts in Redis."""

    client: redis.Redis | None = None
    now: int = START

    def __post_init__(self) -> None:
        self.set(self.now)

    def __call__(self) -> int:
        return self.now

    def set(self, now: int) -> None:
        self.now = now
        if self.client is not None:
            set_clock(self.client, now * 1000)

    def advance(self, seconds: float) -> None:
        self.set(self.now + round(seconds * 1000))


def redis_traffic(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[RedisTraffic, Clock]:
    client = redis.Redis.from_url(url)
    traffic = RedisTraffic(load_settings(redis_url=url), client)
    clocked = {
        name: client.register_script(on_clock(SCRIPTS.source(name))) for name in SCRIPTS.names
    }
    monkeypatch.setattr(traffic._scripts, "_scripts", clocked)
    return traffic, Clock(client)


def memory_traffic() -> tuple[InMemoryTraffic, Clock]:
    clock = Clock()
    return InMemoryTraffic(clock=clock), clock


@dataclass
class TrafficBench:
    """A traffic under test, and its clock."""

    traffic: Traffic
    clock: Clock

    def ask(self, **more: Any) -> Ask:
        more.setdefault("call_id", uuid.uuid4().hex)
        return Ask(provider="p", **more)

    def admit(self, **more: Any) -> Any:
        """A new call; None when it may be made."""
        return self.traffic.admit(self.ask(**more))

    def fail(self, call_id: str | None = None, **more: Any) -> Any:
        more = {"hold": None, "counts": True, **more}
        return self.traffic.failed("p", call_id or uuid.uuid4().hex, **more)
