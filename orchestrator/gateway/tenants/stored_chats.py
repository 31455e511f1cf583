"""The chat completions that a tenant asked to store, in order of creation."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

import redis.asyncio

from agentapi.redis.aio import AsyncScripts
from agentapi.redis.connection import translate_errors
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.tenants.scripts import SCRIPTS

_PIECE: Final = 50


class StoredChats:
    """The lists of all tenants. Entries whose turn is gone are ignored."""

    def __init__(self, settings: GatewaySettings, client: redis.asyncio.Redis) -> None:
        self._settings = settings
        self._client = client
        self._scripts = AsyncScripts(settings, client, SCRIPTS)

    async def add(self, tenant: str, turn_id: str) -> None:
        """Add a turn to the list, unless it is there already.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        retention = round(self._settings.turn_retention * 1000)
        await self._scripts.call("list_chat", [_key(tenant)], [turn_id, retention])

    async def has(self, tenant: str, turn_id: str) -> bool:
        """Whether a turn is in the list.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        with translate_errors(self._settings.redis_url):
            return await self._client.zscore(_key(tenant), turn_id) is not None

    async def remove(self, tenant: str, turn_id: str) -> None:
        """Remove a turn from the list.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        with translate_errors(self._settings.redis_url):
            await self._client.zrem(_key(tenant), turn_id)

    async def ids(self, tenant: str, after: str | None, *, up: bool) -> AsyncGenerator[str, None]:
        """The ids of the turns.

        Args:
            tenant: The tenant.
            after: Start after this turn.
            up: Whether the oldest comes first.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        key, start = _key(tenant), 0
        client: Any = self._client
        while True:
            with translate_errors(self._settings.redis_url):
                if after is not None:
                    place = await (client.zrank if up else client.zrevrank)(key, after)
                    # The list may change between two reads, so continue after the last entry, not
                    # at an index.
                    start = start if place is None else place + 1
                found: list[bytes] = await client.zrange(
                    key, start, start + _PIECE - 1, desc=not up
                )
            for member in found:
                after = member.decode()
                yield after
            start += len(found)
            if len(found) < _PIECE:
                return


def _key(tenant: str) -> str:
    return f"agentapi:gateway:{{{tenant}}}:chats"
