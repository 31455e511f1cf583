"""The store in Redis: one Lua script for each transition, one round trip for each call."""

from __future__ import annotations

import redis
from typing_extensions import override

from agentapi.archive.opening import open_archive
from agentapi.archive.protocol import Archive
from agentapi.decoding.records import PROTOCOL
from agentapi.redis.commands import Replicas
from agentapi.redis.connection import connect, translate_errors
from agentapi.redis.keys import PROTOCOL_KEY
from agentapi.redis.scripts import Scripts
from agentapi.settings import Settings
from agentapi.stores.protocol import TurnStore
from agentapi.stores.redis.archiving import RedisArchiving
from agentapi.stores.redis.backlog import RedisBacklog
from agentapi.stores.redis.calls import RedisCalls
from agentapi.stores.redis.conversations import RedisConversations
from agentapi.stores.redis.data import RedisData
from agentapi.stores.redis.histories import RedisHistories
from agentapi.stores.redis.lists import RedisLists
from agentapi.stores.redis.producer import RedisProducer
from agentapi.stores.redis.scripts import SCRIPTS
from agentapi.stores.redis.sweep import RedisSweep
from agentapi.stores.redis.telling import RedisHooks
from agentapi.stores.redis.values import milliseconds
from agentapi.stores.redis.worker import RedisWorker
from agentapi.stores.refusals import newer_fleet


class RedisTurnStore(
    RedisProducer, RedisWorker, RedisSweep, RedisHistories, RedisBacklog, TurnStore
):
    """The `TurnStore` of workers and producers. Safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis | None = None,
        *,
        keep_connections: bool = False,
        archive: Archive | None = None,
    ) -> None:
        """Connects when first used.

        Args:
            settings: Address of Redis, and the protocol's times and limits.
            client: A client of that Redis; a new one when not given.
            keep_connections: For a process whose threads stay; see `Scripts`.
            archive: The archive for idle conversations; the settings' archive when not given.

        Raises:
            ConfigurationError: A URL is not valid, or an extra that it needs is not installed.
        """
        client = client or connect(settings)
        replicas = None
        if settings.redis_wait_replicas:
            # Half of the timeout for an answer, so that the wait ends before the connection times
            # out.
            wait = milliseconds(settings.redis_timeout / 2)
            replicas = Replicas(settings.redis_wait_replicas, wait)
        scripts = Scripts(client, SCRIPTS, keep_connections=keep_connections, replicas=replicas)
        super().__init__(settings, client, scripts)
        archive = archive or open_archive(settings)
        self.archiving = RedisArchiving(settings, client, scripts, archive) if archive else None
        """Moves conversations to and from the archive; None without an archive."""
        if self.archiving is not None:
            scripts.bring_back = self.archiving.bring_back
        self.calls = RedisCalls(settings, client, scripts)
        self.conversations = RedisConversations(settings, client, scripts)
        self.data = RedisData(settings, client, scripts, self.archiving)
        self.hooks = RedisHooks(settings, client, scripts)
        archived = self.archiving.turns if self.archiving else None
        self.lists = RedisLists(settings, client, scripts, archived)

    @override
    def check_protocol(self) -> None:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(PROTOCOL_KEY, PROTOCOL, nx=True)
        pipeline.get(PROTOCOL_KEY)
        with translate_errors(self._settings.redis_url):
            _, fleet = pipeline.execute()
        if not fleet.isdigit() or int(fleet) > PROTOCOL:
            raise newer_fleet(fleet)

    @override
    def ping(self) -> None:
        with translate_errors(self._settings.redis_url):
            self._client.ping()

    @override
    def close(self) -> None:
        self._reader.close()
        self._cancels.close()
        self.lists.close()
        if self.archiving is not None:
            self.archiving.close()
        self._client.close()
        self._client.connection_pool.disconnect()
