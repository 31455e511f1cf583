"""Bearer keys: each belongs to a tenant; Redis holds their hashes."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final, cast

import orjson
import redis.asyncio

from agentapi import Settings
from agentapi.errors import InvalidInput
from agentapi.redis.connection import translate_errors
from orchestrator.gateway.tenants.names import TENANT

KEYS: Final = "agentapi:gateway:keys"
"""Hash: SHA-256 of a key -> what is known of it. A key has 256 random bits, so that a plain hash
cannot be searched for it."""

KEYED: Final = "agentapi:gateway:keyed"
"""Says that keys were made, should the hash itself be lost: that must not open the gateway."""

_MOST_VALID: Final = 4_096
"""Keys that a process remembers as valid, by their hashes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """A key without its secret.

    Attributes:
        key_id: Names it, for lists and to revoke it.
        tenant: Whose it is.
        label: What its maker called it.
        created: Seconds since 1970 by Redis's clock.
        revoked: When it was revoked, or None.
    """

    key_id: str
    tenant: str
    label: str
    created: int
    revoked: int | None = None


def check_tenant(tenant: str) -> str:
    """Return the tenant's name if it is valid.

    Raises:
        InvalidInput: It is not; says what is.
    """
    if not TENANT.fullmatch(tenant):
        raise InvalidInput(
            "the tenant's name is not valid: expected 1 to 64 letters, digits, dots, dashes or "
            "underscores, the first a letter or digit"
        )
    return tenant


class KeyStore:
    """Makes, finds and revokes keys.

    Attributes:
        seen: Whether this process knows that keys were made. That never changes back, whatever
            becomes of Redis.
    """

    def __init__(self, settings: Settings, client: redis.asyncio.Redis) -> None:
        self._url = settings.redis_url
        self._client = client
        self._valid: OrderedDict[str, None] = OrderedDict()
        self.seen = False

    async def create(self, tenant: str, label: str = "") -> tuple[ApiKey, str]:
        """Make a key.

        Returns:
            The key, and the secret, which is not kept anywhere.

        Raises:
            InvalidInput: The tenant's name is not valid.
            StoreUnavailable: Redis is out of reach.
        """
        secret = f"ak-{secrets.token_urlsafe(32)}"
        key = ApiKey(
            key_id=f"key_{secrets.token_hex(6)}",
            tenant=check_tenant(tenant),
            label=label,
            created=await self._now(),
        )
        await self._write(_hash(secret), key)
        return key, secret

    async def all(self) -> list[ApiKey]:
        """All keys, oldest first, revoked ones too.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        return sorted((await self._read()).values(), key=lambda key: (key.created, key.key_id))

    async def revoke(self, key_id: str) -> ApiKey:
        """End a key; it stays in the list, so that its end never opens the gateway.

        Raises:
            InvalidInput: There is no such key.
            StoreUnavailable: Redis is out of reach.
        """
        for digest, key in (await self._read()).items():
            if key.key_id == key_id:
                ended = replace(key, revoked=key.revoked or await self._now())
                await self._write(digest, ended)
                return ended
        raise InvalidInput(f"there is no key {key_id!r}: `agentapi keys list` shows all")

    async def find(self, secret: str) -> ApiKey | None:
        """The key of a secret, unless it is revoked.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        digest = _hash(secret)
        with translate_errors(self._url):
            found = cast("bytes | None", await self._client.hget(KEYS, digest))
        key = _load(found) if found is not None else None
        self.seen = self.seen or key is not None
        self._valid.pop(digest, None)
        if key is None or key.revoked is not None:
            return None
        self._valid[digest] = None
        if len(self._valid) > _MOST_VALID:
            self._valid.popitem(last=False)
        return key

    def was_valid(self, secret: str) -> bool:
        """Whether a secret was valid when this process last looked."""
        return bool(secret) and _hash(secret) in self._valid

    async def exist(self) -> bool:
        """Whether keys were ever made, revoked and lost ones included.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        if not self.seen:
            with translate_errors(self._url):
                pipeline = self._client.pipeline(transaction=False)
                pipeline.exists(KEYS)
                pipeline.exists(KEYED)
                made, marked = await pipeline.execute()
                if made and not marked:
                    # They are of a release that left no mark.
                    await self._client.set(KEYED, "1")
                self.seen = bool(made or marked)
        return self.seen

    async def _read(self) -> dict[str, ApiKey]:
        with translate_errors(self._url):
            found = cast("dict[bytes, bytes]", await self._client.hgetall(KEYS))
        return {digest.decode(): _load(value) for digest, value in found.items()}

    async def _write(self, digest: str, key: ApiKey) -> None:
        with translate_errors(self._url):
            pipeline = self._client.pipeline(transaction=True)
            pipeline.hset(KEYS, digest, _dump(key))
            pipeline.set(KEYED, "1")
            await pipeline.execute()

    async def _now(self) -> int:
        with translate_errors(self._url):
            seconds, _ = await self._client.time()
        return int(seconds)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _dump(key: ApiKey) -> bytes:
    return orjson.dumps(
        {
            "v": 1,
            "id": key.key_id,
            "tenant": key.tenant,
            "label": key.label,
            "created": key.created,
            "revoked": key.revoked,
        }
    )


def _load(value: bytes) -> ApiKey:
    data = orjson.loads(value)
    return ApiKey(
        key_id=data["id"],
        tenant=data["tenant"],
        label=data["label"],
        created=data["created"],
        revoked=data["revoked"],
    )
