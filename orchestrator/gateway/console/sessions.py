"""Sessions of the console, shared by all gateways."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final, cast

import orjson
import redis.asyncio

from agentapi.redis.connection import translate_errors
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.tenants.keys import ApiKey, KeyStore, digest_of

_PREFIX: Final = "agentapi:gateway:session:"


class Sessions:
    """Starts, finds and ends sessions.

    Redis stores the SHA-256 of a session's token and of its key, so reading Redis reveals neither.
    The key is looked up each time: a session ends when its key is revoked.
    """

    def __init__(
        self, settings: GatewaySettings, client: redis.asyncio.Redis, keys: KeyStore
    ) -> None:
        self._url = settings.redis_url
        self._lifetime = max(1, round(settings.gateway_session))
        self._client = client
        self._keys = keys

    @property
    def lifetime(self) -> int:
        """Seconds until a session ends."""
        return self._lifetime

    async def begin(self, secret: str) -> str:
        """Start a session for a key; returns its token.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        token = secrets.token_urlsafe(32)
        record = orjson.dumps({"v": 1, "key": digest_of(secret)})
        with translate_errors(self._url):
            await self._client.set(_key(token), record, ex=self._lifetime)
        return token

    async def find(self, token: str) -> ApiKey | None:
        """The key of a session; None if the session has ended, or the key was revoked.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        with translate_errors(self._url):
            found = cast("bytes | None", await self._client.get(_key(token)))
        return None if found is None else await self._keys.of_digest(orjson.loads(found)["key"])

    async def end(self, token: str) -> None:
        """End a session, on all gateways.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        with translate_errors(self._url):
            await self._client.delete(_key(token))


def name_of(token: str) -> str:
    """The stored name of a session, from which its token cannot be derived."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _key(token: str) -> str:
    return _PREFIX + name_of(token)
