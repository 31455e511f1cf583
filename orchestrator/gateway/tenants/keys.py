"""API keys. Each belongs to a tenant; Redis stores only their hashes."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import orjson
import redis.asyncio

from agentapi import Settings
from agentapi.errors import InvalidInput
from agentapi.redis.connection import translate_errors
from orchestrator.gateway.tenants.names import TENANT
from orchestrator.gateway.tenants.scopes import DEFAULT, Scope, listed

KEYS: Final = "agentapi:gateway:keys"
"""Hash: SHA-256 of a key -> its record. A plain hash suffices, since a key has 256 random bits."""

CONSOLE_KEYS: Final = "agentapi:gateway:console-keys"
"""The same for keys without the scope `turns`. Releases without scopes do not read this hash, so
their gateways never treat such a key as one that allows everything."""

KEYED: Final = "agentapi:gateway:keyed"
"""Records that keys have been created. Even if the hash is lost, the gateway must not become
open."""

_MAX_VALID: Final = 4_096
"""Maximum hashes of valid keys that a process caches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """A key without its secret.

    Attributes:
        key_id: Its public name, for lists and to revoke it.
        tenant: The tenant it belongs to.
        label: A note of its creator.
        created: Seconds since 1970 by Redis's clock.
        revoked: When it was revoked, or None.
        scopes: What it allows.
    """

    key_id: str
    tenant: str
    label: str
    created: int
    revoked: int | None = None
    scopes: frozenset[Scope] = DEFAULT


def check_tenant(tenant: str) -> str:
    """Return the tenant's name if it is valid.

    Raises:
        InvalidInput: It is not valid; says what is.
    """
    if not TENANT.fullmatch(tenant):
        raise InvalidInput(
            "the tenant's name is not valid: expected 1 to 64 letters, digits, dots, dashes or "
            "underscores, the first a letter or digit"
        )
    return tenant


class KeyStore:
    """Creates, finds and revokes keys.

    Attributes:
        seen: Whether this process knows that keys were created. Once true it stays true, even if
            Redis loses them.
    """

    def __init__(self, settings: Settings, client: redis.asyncio.Redis) -> None:
        self._url = settings.redis_url
        self._client = client
        # Only distinguishes known clients from guessers. Every request still asks Redis, so a
        # revoked key fails immediately.
        self._valid: OrderedDict[str, None] = OrderedDict()
        self.seen = False

    async def create(
        self, tenant: str, label: str = "", scopes: frozenset[Scope] = DEFAULT
    ) -> tuple[ApiKey, str]:
        """Create a key.

        Args:
            tenant: The tenant that it belongs to.
            label: A note.
            scopes: What it allows.

        Returns:
            The key, and its secret, which is stored nowhere.

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
            scopes=scopes,
        )
        await self._write(digest_of(secret), key)
        return key, secret

    async def all(self) -> list[ApiKey]:
        """All keys, oldest first, with the revoked ones.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        return sorted((await self._read()).values(), key=lambda key: (key.created, key.key_id))

    async def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key. Its record stays, so that the gateway never opens because of it.

        Raises:
            InvalidInput: No key has this id.
            StoreUnavailable: Redis is out of reach.
        """
        for digest, key in (await self._read()).items():
            if key.key_id == key_id:
                revoked = replace(key, revoked=key.revoked or await self._now())
                await self._write(digest, revoked)
                return revoked
        raise InvalidInput(f"there is no key {key_id!r}: `agentapi keys list` shows all")

    async def find(self, secret: str) -> ApiKey | None:
        """The key with a secret, unless it is revoked.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        return await self.of_digest(digest_of(secret))

    async def of_digest(self, digest: str) -> ApiKey | None:
        """The same key by its digest; see `digest_of`.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        with translate_errors(self._url):
            pipeline = self._client.pipeline(transaction=False)
            for name in (KEYS, CONSOLE_KEYS):
                pipeline.hget(name, digest)
            found = next(filter(None, await pipeline.execute()), None)
        key = _load(found) if found is not None else None
        self.seen = self.seen or key is not None
        self._valid.pop(digest, None)
        if key is None or key.revoked is not None:
            return None
        self._valid[digest] = None
        if len(self._valid) > _MAX_VALID:
            self._valid.popitem(last=False)
        return key

    def was_valid(self, secret: str) -> bool:
        """Whether a secret was valid when this process last looked."""
        return bool(secret) and digest_of(secret) in self._valid

    async def exist(self) -> bool:
        """Whether keys were ever created, including revoked and lost ones.

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
                    # A release that did not write the mark created them.
                    await self._client.set(KEYED, "1")
                self.seen = bool(made or marked)
        return self.seen

    async def _read(self) -> dict[str, ApiKey]:
        with translate_errors(self._url):
            pipeline = self._client.pipeline(transaction=False)
            for name in (KEYS, CONSOLE_KEYS):
                pipeline.hgetall(name)
            hashes = cast("list[dict[bytes, bytes]]", await pipeline.execute())
        return {
            digest.decode(): _load(value) for found in hashes for digest, value in found.items()
        }

    async def _write(self, digest: str, key: ApiKey) -> None:
        with translate_errors(self._url):
            # Write the mark first, in a separate call, because on a cluster the two may be on
            # different shards. A key without the mark would open the gateway if the hash were lost.
            await self._client.set(KEYED, "1")
            keys = KEYS if Scope.TURNS in key.scopes else CONSOLE_KEYS
            await cast("Any", self._client).hset(keys, digest, _dump(key))

    async def _now(self) -> int:
        with translate_errors(self._url):
            seconds, _ = await self._client.time()
        return int(seconds)


def digest_of(secret: str) -> str:
    """The digest that is stored instead of a key's secret."""
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
            "scopes": listed(key.scopes),
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
        scopes=_known_scopes(data.get("scopes")),
    )


def _known_scopes(names: list[str] | None) -> frozenset[Scope]:
    """The scopes in a key's record, without those of a later release."""
    if names is None:
        return DEFAULT
    return frozenset(scope for scope in Scope if scope.value in names)
