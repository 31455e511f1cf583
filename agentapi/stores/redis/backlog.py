"""What the turns of the whole fleet wait for, in Redis."""

from __future__ import annotations

from collections import Counter
from typing import Any

from typing_extensions import override

from agentapi.ids import PARTITIONS
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversations_prefix, due_key, turns_prefix
from agentapi.redis.scripts import Call
from agentapi.stores.backlog import SAMPLE, Backlog, BacklogStore, ReadyTurn
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
        first_ready: ReadyTurn | None = None
        parked: Counter[str] = Counter()
        for partition, [waits, runs, first, now, *more] in zip(used, answers, strict=True):
            ready[partition] = int(waits)
            running += int(runs)
            waited = (int(now) - int(first)) / 1000 if int(first) else 0.0
            if int(first) and (first_ready is None or waited > oldest):
                oldest, first_ready = (
                    max(oldest, waited),
                    ReadyTurn(
                        turn_id=_shown(more[0]),
                        conversation_id=_shown(more[1]),
                        agent=_shown(more[2]),
                    ),
                )
            for reason, turns in zip(more[3::2], more[4::2], strict=True):
                parked[_shown(reason)] += int(turns)
        return Backlog(
            ready=ready,
            running=running,
            parked=dict(parked),
            oldest_ready=oldest,
            first_ready=first_ready,
        )

    def _look(self, partition: int) -> Call:
        near = milliseconds(self._settings.lease_ttl + self._settings.dispatch_grace)
        prefixes = conversations_prefix(partition), turns_prefix(partition)
        return [due_key(partition)], [*prefixes, self._grace, near, SAMPLE]


def _shown(reason: Any) -> str:
    text: str = reason.decode(errors="replace")
    return text
