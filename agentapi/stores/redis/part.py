"""The base of all parts of the Redis store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import redis
from redis.client import Pipeline

from agentapi.errors import StoreUnavailable
from agentapi.ids import partition_of_turn
from agentapi.logs import line
from agentapi.metrics import recorder
from agentapi.metrics.catalog import WRITES_REFUSED
from agentapi.redis.archived import no_archive
from agentapi.redis.cluster import ClusterClient, ClusterPipeline
from agentapi.redis.connection import translate_errors, translated
from agentapi.redis.keys import conversation_keys, due_key, turn_keys, turns_prefix
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings
from agentapi.signals import LeaseLost
from agentapi.stores.lease import Lease
from agentapi.stores.missing import Missing
from agentapi.stores.redis.values import milliseconds
from agentapi.stores.refusals import lost, no_turn

log = logging.getLogger("agentapi.store")


def refused(script: str, lease: Lease) -> LeaseLost:
    """The error for a write that a script refused."""
    recorder().count(WRITES_REFUSED, script)
    return lost(lease)


class ShardLog:
    """Logs once when shards of a cluster become unavailable, and once when they are back."""

    def __init__(self) -> None:
        self._away: set[str] = set()

    def note(self, script: str, error: StoreUnavailable | None) -> None:
        """Record the result of a script's calls: the error of an unavailable shard, or None."""
        if error is not None and script not in self._away:
            self._away.add(script)
            log.warning(line("shard.away", script=script, error=error))
        elif error is None and script in self._away:
            self._away.discard(script)
            log.warning(line("shard.back", script=script))


class RedisPart:
    """The connection of a part, and the times that scripts take. Safe to share between threads."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        self._settings = settings
        self._client = client
        self._scripts = scripts
        self._patience = settings.redis_timeout / 2
        self._shards = ShardLog()
        self._grace = milliseconds(settings.dispatch_grace)
        self._retentions = (
            milliseconds(settings.turn_retention),
            milliseconds(settings.events_retention),
        )

    def _call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        with translate_errors(self._settings.redis_url):
            return self._scripts.call(name, keys, args)

    def _refuse_archived(self, conversation_id: str) -> None:
        """For a process without an archive that found no history: check whether it is archived.

        Raises:
            ArchiveUnavailable: The history is in the archive.
        """
        with translate_errors(self._settings.redis_url):
            archived = self._client.hget(conversation_keys(conversation_id).meta, "archived")
        if archived is not None:
            raise no_archive()

    def _each(self, name: str, calls: Sequence[Call], *, everywhere: bool = True) -> list[Any]:
        """Run a script several times; on a cluster, shard by shard.

        Args:
            name: The script.
            calls: Its calls.
            everywhere: Whether the calls go to all shards. If so, and all answer, no shard is
                unavailable.

        Returns:
            The answer of each call, or None if its shard is unavailable.

        Raises:
            StoreUnavailable: All shards are unavailable.
            StoreFault: A call itself is refused.
        """
        with translate_errors(self._settings.redis_url):
            answers = self._scripts.call_each(name, calls, patience=self._patience)
        return self._answered(name, answers, everywhere=everywhere)

    def _each_of_some(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """Run a script for some partitions; returns and raises like `_each`, but on a cluster all
        shards of these partitions may be unavailable."""
        try:
            return self._each(name, calls, everywhere=False)
        except StoreUnavailable:
            if not self._scripts.on_cluster:
                raise
            return [None] * len(calls)

    def _each_of(self, name: str, pipeline: Pipeline, *, everywhere: bool = True) -> list[Any]:
        """Execute a pipeline of reads; returns and raises like `_each`.

        Args:
            name: Name of these reads, for the log.
            pipeline: A pipeline of one server or of a cluster.
            everywhere: See `_each`.
        """
        with translate_errors(self._settings.redis_url):
            if isinstance(pipeline, ClusterPipeline):
                answers = pipeline.execute_each(self._patience)
            else:
                answers = pipeline.execute()
        return self._answered(name, answers, everywhere=everywhere)

    def _answered(self, name: str, answers: list[Any], *, everywhere: bool) -> list[Any]:
        away: StoreUnavailable | None = None
        for number, answer in enumerate(answers):
            if isinstance(answer, redis.RedisError):
                error = translated(answer, self._settings.redis_url)
                if not isinstance(error, StoreUnavailable):
                    raise error from answer
                away, answers[number] = error, None
        if everywhere or away is not None:
            self._shards.note(name, away)
        return answers

    def _missing(self, partitions: Sequence[int]) -> Missing | None:
        """The missing part if some partitions did not answer; None if all did."""
        if not partitions:
            return None
        client = self._client
        shards = (
            {client.address_of(due_key(partition)) for partition in partitions}
            if isinstance(client, ClusterClient)
            else set()
        )
        return Missing(
            partitions=len(partitions), shards=tuple(sorted(name for name in shards if name))
        )

    def _joined(self, turn_id: str) -> tuple[str, str]:
        """The turn, or the one that its message joined, and the conversation."""
        asked, looked = turn_id, False
        for _ in range(3):
            found = self._call("about", [turn_keys(turn_id).turn], ["conversation", "into"])
            conversation, joined = cast("list[bytes | None]", found) or (None, None)
            if conversation is not None:
                return turn_id, conversation.decode()
            if joined is not None:
                turn_id = joined.decode()
            elif looked:
                break
            else:
                # If it is in the archive, it comes back.
                looked, prefix = True, turns_prefix(partition_of_turn(asked))
                self._call("read", [turn_keys(asked).turn], [asked, prefix])
        raise no_turn(turn_id)
