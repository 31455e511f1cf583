"""Histories in Redis, and what is kept beside them: summaries, bytes of images and files."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import redis

from agentapi.conversation.compaction import Summary
from agentapi.conversation.messages import Message, loads
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversation_keys
from agentapi.redis.scripts import Scripts
from agentapi.settings import Settings
from agentapi.stores.redis.codec import summary_from


class RedisHistories:
    """The part of the `TurnStore` that is about conversations as such."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        self._settings = settings
        self._client = client
        self._scripts = scripts

    def history(self, conversation_id: str) -> list[Message]:
        """See `TurnStore.history`."""
        with translate_errors(self._settings.redis_url):
            messages = self._client.lrange(conversation_keys(conversation_id).messages, 0, -1)
        return [loads(message) for message in messages]

    def blobs(self, conversation_id: str, names: Sequence[str]) -> dict[str, bytes]:
        """See `TurnStore.blobs`."""
        with translate_errors(self._settings.redis_url):
            found = self._client.hmget(conversation_keys(conversation_id).blobs, list(names))
        return {n: data for n, data in zip(names, found, strict=True) if isinstance(data, bytes)}

    def slice(self, conversation_id: str, start: int, stop: int) -> list[Message]:
        """See `TurnStore.slice`."""
        with translate_errors(self._settings.redis_url):
            found = self._client.lrange(conversation_keys(conversation_id).messages, start, stop)
        return [loads(message) for message in found]

    def summary(self, conversation_id: str) -> Summary:
        """See `TurnStore.summary`."""
        keys = conversation_keys(conversation_id)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hmget(keys.meta, ["summary", "covered"])
        pipeline.llen(keys.messages)
        with translate_errors(self._settings.redis_url):
            fields, total = pipeline.execute()
        return summary_from(fields, total)

    def summarise(
        self, conversation_id: str, text: str, *, generation: int, start: int, stop: int
    ) -> bool:
        """See `TurnStore.summarise`."""
        keys = conversation_keys(conversation_id)
        return bool(
            self._call("summarise", [keys.meta], [generation, start, stop, text])[0] == b"kept"
        )

    def reset(self, conversation_id: str) -> int:
        """See `TurnStore.reset`."""
        keys = conversation_keys(conversation_id)
        reply = self._call(
            "reset", [keys.messages, keys.meta, keys.inbox], [uuid.uuid4().hex, "*", keys.turns]
        )
        return int(reply[1])

    def _call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        with translate_errors(self._settings.redis_url):
            return self._scripts.call(name, keys, args)
