"""Notifications to worker processes that turns of theirs are cancelled."""

from __future__ import annotations

from typing import Any

import redis

from agentapi.redis.connection import connect, translate_errors
from agentapi.redis.keys import CANCELS_TTL, cancels_key
from agentapi.settings import Settings

LONGEST_BLOCK = 5.0
"""Maximum seconds of one blocking read."""


def leave_word(client: redis.Redis, process: str) -> None:
    """Leave a notification for a process.

    The key is in its own hash slot, so a script that cancels a turn cannot write it. If the
    script's caller dies before writing it, the process learns of the cancellation with its next
    heartbeat.
    """
    key = cancels_key(process)
    pipeline = client.pipeline(transaction=False)
    # One notification is enough for any number of turns: the process checks all of them.
    pipeline.lpush(key, 1)
    pipeline.ltrim(key, 0, 0)
    pipeline.expire(key, CANCELS_TTL)
    pipeline.execute()


class CancelReader:
    """Waits for notifications over its own connection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._blocking: redis.Redis | None = None

    def wait(self, process: str, timeout: float) -> bool:
        """Wait for a notification; returns whether one arrived."""
        with translate_errors(self._settings.redis_url):
            if self._blocking is None:
                self._blocking = connect(self._settings, block=LONGEST_BLOCK)
            found: Any = self._blocking.blpop([cancels_key(process)], min(timeout, LONGEST_BLOCK))
        return found is not None

    def close(self) -> None:
        """Close the waiting connection."""
        if self._blocking is not None:
            self._blocking.close()
            self._blocking.connection_pool.disconnect()
