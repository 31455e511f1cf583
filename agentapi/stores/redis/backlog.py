"""The backlog of the whole fleet, in Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import override

from agentapi.ids import PARTITIONS
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
        there = self._each_of("backlog", pipeline)
        used = [p for p, exists in enumerate(there) if exists]
        # An idle fleet needs no script call.
        looks = [self._look(partition) for partition in used]
        answers = self._each("backlog", looks, everywhere=False) if looks else []
        found = dict(zip(used, answers, strict=True))
        away = [p for p, exists in enumerate(there) if exists is None or found.get(p, ()) is None]
        return replace(_summed(found), missing=self._missing(away))

    def _look(self, partition: int) -> Call:
        near = milliseconds(self._settings.lease_ttl + self._settings.dispatch_grace)
        prefixes = conversations_prefix(partition), turns_prefix(partition)
        return [due_key(partition)], [*prefixes, self._grace, near, SAMPLE]


def _summed(found: Mapping[int, Sequence[Any] | None]) -> Backlog:
    """The backlog of the partitions that have answered."""
    ready, running, oldest = {}, 0, 0.0
    first_ready: ReadyTurn | None = None
    parked: Counter[str] = Counter()
    for partition, answer in found.items():
        if answer is None:
            continue
        waits, runs, first, now, *more = answer
        ready[partition] = int(waits)
        running += int(runs)
        waited = (int(now) - int(first)) / 1000 if int(first) else 0.0
        if int(first) and (first_ready is None or waited > oldest):
            oldest = max(oldest, waited)
            first_ready = ReadyTurn(
                turn_id=_shown(more[0]),
                conversation_id=_shown(more[1]),
                agent=_shown(more[2]),
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


def _shown(reason: Any) -> str:
    text: str = reason.decode(errors="replace")
    return text
