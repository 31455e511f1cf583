"""Histories in Redis, with their summaries and the bytes of images and files."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from typing_extensions import override

from agentapi.conversation.compaction import Summary
from agentapi.conversation.messages import Message, loads
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversation_keys, turn_keys
from agentapi.stores.protocol import HistoryStore
from agentapi.stores.redis.archiving import RedisArchiving
from agentapi.stores.redis.codec import summary_from
from agentapi.stores.redis.part import RedisPart


class RedisHistories(RedisPart, HistoryStore):
    """The `HistoryStore` in Redis."""

    archiving: RedisArchiving | None = None

    def _brought_back(self, conversation_id: str) -> bool:
        """Whether a missing history was in the archive and is back now."""
        if self.archiving is None:
            self._refuse_archived(conversation_id)
            return False
        away = self.archiving.away(conversation_id)
        if away is None:
            return False
        self.archiving.bring_back(away)
        return True

    @override
    def history(self, conversation_id: str) -> list[Message]:
        return self.slice(conversation_id, 0, -1)

    @override
    def blobs(self, conversation_id: str, names: Sequence[str]) -> dict[str, bytes]:
        with translate_errors(self._settings.redis_url):
            found = self._client.hmget(conversation_keys(conversation_id).blobs, list(names))
        blobs = {n: data for n, data in zip(names, found, strict=True) if isinstance(data, bytes)}
        if len(blobs) == len(set(names)):
            return blobs
        if self.archiving is None:
            self._refuse_archived(conversation_id)
        else:
            copy = self.archiving.peek(conversation_id)
            archived = copy.blobs if copy is not None else {}
            blobs = {n: archived[n] for n in names if n in archived} | blobs
        return blobs

    @override
    def set_aside(self, turn_id: str, names: Sequence[str]) -> dict[str, bytes]:
        with translate_errors(self._settings.redis_url):
            found = self._client.hmget(f"{turn_keys(turn_id).turn}:blobs", list(names))
        return {n: data for n, data in zip(names, found, strict=True) if isinstance(data, bytes)}

    @override
    def slice(self, conversation_id: str, start: int, stop: int) -> list[Message]:
        with translate_errors(self._settings.redis_url):
            found = self._client.lrange(conversation_keys(conversation_id).messages, start, stop)
        if not found and self._brought_back(conversation_id):
            return self.slice(conversation_id, start, stop)
        return [loads(message) for message in found]

    @override
    def summary(self, conversation_id: str) -> Summary:
        keys = conversation_keys(conversation_id)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hmget(keys.meta, ["summary", "covered"])
        pipeline.llen(keys.messages)
        with translate_errors(self._settings.redis_url):
            fields, total = pipeline.execute()
        if not total and self._brought_back(conversation_id):
            return self.summary(conversation_id)
        return summary_from(fields, total)

    @override
    def summarise(
        self, conversation_id: str, text: str, *, generation: int, start: int, stop: int
    ) -> bool:
        keys = conversation_keys(conversation_id)
        return bool(
            self._call("summarise", [keys.meta], [generation, start, stop, text])[0] == b"kept"
        )

    @override
    def reset(self, conversation_id: str) -> int:
        keys = conversation_keys(conversation_id)
        reply = self._call(
            "reset", [keys.messages, keys.meta, keys.inbox], [uuid.uuid4().hex, "*", keys.turns]
        )
        return int(reply[1])
