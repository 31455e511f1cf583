"""What the turns of the whole fleet wait for, in Redis."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typing_extensions import override

from agentapi.ids import PARTITIONS
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversations_prefix, due_key, turns_prefix
from agentapi.redis.scripts import Call
from agentapi.stores.backlog import SAMPLE, Backlog, BacklogStore
from agentapi.stores.redis.part import RedisPart
from agentapi.stores.redis.values import milliseconds


class RedisBacklog(RedisPart, BacklogStore):
    """The `BacklogStore` in Redis."""

    @override
    def backlog(self) -> Backlog:
        pipeline = self._client.pipeline(transaction=False)
        for partition in range(PARTITIONS):
            pipeline.exists(due_key(partition))
        with translate_errors(self._settings.redis_url):
            used = [p for p, exists in enumerate(pipeline.execute()) if exists]
            # An idle fleet costs no script.
            answers = self._scripts.call_many("backlog", [self._look(p) for p in used])
        ready, running, oldest = {}, 0, 0.0
        parked: Counter[str] = Counter()
        for partition, [waits, runs, first, now, *reasons] in zip(used, answers, strict=True):
            ready[partition] = int(waits)
            running += int(runs)
            if int(first):
                oldest = max(oldest, (int(now) - int(first)) / 1000)
            for reason, turns in zip(reasons[::2], reasons[1::2], strict=True):
                parked[_shown(reason)] += int(turns)
        return Backlog(ready=ready, running=running, parked=dict(parked), oldest_ready=oldest)

    def _look(self, partition: int) -> Call:
        near = milliseconds(self._settings.lease_ttl + self._settings.dispatch_grace)
        prefixes = conversations_prefix(partition), turns_prefix(partition)
        return [due_key(partition)], [*prefixes, self._grace, near, SAMPLE]


def _shown(reason: Any) -> str:
    text: str = reason.decode(errors="replace")
    return text
