"""What all parts of the store in Redis share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import redis

from agentapi.metrics import recorder
from agentapi.metrics.catalog import WRITES_REFUSED
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import turn_keys
from agentapi.redis.scripts import Scripts
from agentapi.settings import Settings
from agentapi.signals import LeaseLost
from agentapi.stores.lease import Lease
from agentapi.stores.redis.values import milliseconds
from agentapi.stores.refusals import lost, no_turn


def refused(script: str, lease: Lease) -> LeaseLost:
    """The error of a write that a script refused."""
    recorder().count(WRITES_REFUSED, script)
    return lost(lease)


class RedisPart:
    """The connection of a part, and the times that scripts take. Safe to share between threads."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        self._settings = settings
        self._client = client
        self._scripts = scripts
        self._grace = milliseconds(settings.dispatch_grace)
        self._retentions = (
            milliseconds(settings.turn_retention),
            milliseconds(settings.events_retention),
        )

    def _call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        with translate_errors(self._settings.redis_url):
            return self._scripts.call(name, keys, args)

    def _joined(self, turn_id: str) -> tuple[str, str]:
        """The turn, or the one that its message joined, and the conversation."""
        for _ in range(2):
            with translate_errors(self._settings.redis_url):
                found = self._client.hmget(turn_keys(turn_id).turn, ["conversation", "into"])
            conversation, joined = cast("list[bytes | None]", found)
            if conversation is not None:
                return turn_id, conversation.decode()
            if joined is None:
                break
            turn_id = joined.decode()
        raise no_turn(turn_id)
