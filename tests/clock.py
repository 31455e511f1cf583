"""Runs Lua scripts with a clock that the test sets, instead of Redis's own."""

from __future__ import annotations

from typing import Final

import redis

CLOCK: Final = "test:clock"
"""Hash with `s` and `us`, as in the answer of TIME."""

_TIME: Final = "redis.call('TIME')"


def on_clock(text: str) -> str:
    """A script that reads the test's clock."""
    assert text.count(_TIME) == ("now_ms()" in text)
    return text.replace(_TIME, f"redis.call('HMGET', '{CLOCK}', 's', 'us')")


def set_clock(client: redis.Redis, micros: int) -> None:
    """Set the clock: microseconds since 1970."""
    seconds, rest = divmod(micros, 1_000_000)
    client.hset(CLOCK, mapping={"s": seconds, "us": rest})
