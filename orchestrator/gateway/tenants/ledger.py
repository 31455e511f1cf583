"""What each tenant uses: turns in flight, and bytes in Redis.

Bytes are counted before they are written. An audit compares the count with Redis: it adds replies
and subtracts expired data. A request audits when the limit is reached, and `Auditor` audits in the
background.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import redis
import redis.asyncio

from agentapi.redis.aio import AsyncScripts
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversation_keys, turn_keys
from agentapi.stores.conversations import ForgottenTurn
from agentapi.turns import TERMINAL, TurnStatus
from orchestrator.gateway.http.errors import RateLimited
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.tenants.scripts import SCRIPTS

OVERHEAD: Final = 512
"""Bytes that a conversation or a turn counts in addition to its content."""

_IN_FLIGHT: Final = frozenset(
    status.value.encode() for status in TurnStatus if status not in TERMINAL
)

_MAX_ENQUEUE: Final = 60_000
"""Maximum milliseconds for accepting a turn. A turn that was admitted earlier and is not in Redis
was never accepted."""

_MAX_AUDIT: Final = 200
"""Maximum conversations in one audit."""

_SETTLED: Final = 60_000
"""Milliseconds after which a conversation may be audited. By then, everything that a request
counted has been written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """The resources that a turn would use.

    Attributes:
        turn_id: The turn.
        conversation_id: Internal id of its conversation.
        bytes: Bytes that it adds to the conversation.
        turn_bytes: Bytes that are stored with the turn itself.
    """

    turn_id: str
    conversation_id: str
    bytes: int
    turn_bytes: int


class Ledger:
    """Counts what tenants use, exactly over all gateways, by Redis's clock."""

    def __init__(self, settings: GatewaySettings, client: redis.asyncio.Redis) -> None:
        self._settings = settings
        self._client = client
        self._scripts = AsyncScripts(settings, client, SCRIPTS)
        self._hours = math.ceil(settings.turn_retention / 3600) + 1
        self._active: set[str] = set()

    def active(self) -> list[str]:
        """Tenants that stored something through this process and have not been audited since."""
        return sorted(self._active)

    def rest(self, tenant: str) -> None:
        """Remove a tenant from those to audit, until it stores something."""
        self._active.discard(tenant)

    async def admit(self, tenant: str, asked: Admission) -> bool:
        """Count a turn until it ends, and its bytes.

        Returns:
            True if the turn is new, false if it is a repeat.

        Raises:
            RateLimited: The tenant has too many turns or bytes.
            StoreUnavailable: Redis is out of reach.
        """
        in_flight = self._settings.gateway_turns_in_flight
        stored = self._settings.gateway_stored_bytes
        if not in_flight and not stored:
            return True
        if stored:
            self._active.add(tenant)
        size = [asked.conversation_id, asked.bytes, asked.turn_bytes, self._hours]
        args = [in_flight, asked.turn_id, stored, *size]
        keys = [*_keys(tenant), _answer_key(tenant)]
        reply = await self._call("admit", keys, args)
        if reply[0] == b"full":
            # Turns end without notifying the ledger, so check them when the limit seems to be
            # reached.
            reply = await self._call("admit", keys, [*args, *await self._ended(reply[1:])])
        if reply[0] == b"stored" and await self.audit(tenant, _SETTLED):
            reply = await self._call("admit", keys, args)
        if reply[0] == b"full":
            raise RateLimited(
                f"{in_flight} turns of this key's tenant have not ended: wait for some of them, or "
                "ask an operator to raise AGENTAPI_GATEWAY_TURNS_IN_FLIGHT; nothing was accepted",
                code="turns_in_flight_exceeded",
                retry_after=1,
            )
        if reply[0] == b"stored":
            raise self._no_room()
        return bool(reply[0] == b"admitted")

    async def withdraw(self, tenant: str, asked: Admission, *, stored: bool = True) -> None:
        """Subtract a turn that was admitted but not accepted.

        Args:
            tenant: The tenant.
            asked: The admission to undo.
            stored: Whether to subtract its bytes too.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        sizes = [f"c:{asked.conversation_id}", asked.bytes, "", asked.turn_bytes]
        in_flight = self._settings.gateway_turns_in_flight
        await self._release(tenant, asked.turn_id if in_flight else "", sizes if stored else [])

    async def charge(self, tenant: str, conversation_id: str, size: int) -> None:
        """Count bytes that are about to be written into a conversation.

        Raises:
            RateLimited: The tenant has too many.
            StoreUnavailable: Redis is out of reach.
        """
        limit = self._settings.gateway_stored_bytes
        if not limit:
            return
        self._active.add(tenant)
        keys = [*_keys(tenant)[1:], _answer_key(tenant)]
        args = [limit, conversation_id, size, self._hours]
        reply = await self._call("charge", keys, args)
        if reply[0] == b"stored" and await self.audit(tenant, _SETTLED):
            reply = await self._call("charge", keys, args)
        if reply[0] == b"stored":
            raise self._no_room()

    async def refund(self, tenant: str, conversation_id: str, size: int) -> None:
        """Subtract bytes that `charge` added.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        await self._release(tenant, "", [f"c:{conversation_id}", size])

    async def dropped(self, tenant: str, conversation_id: str) -> None:
        """Subtract a conversation that was deleted.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        await self._release(tenant, "", [f"c:{conversation_id}", 2**53])

    async def forgotten(self, tenant: str, turns: Iterable[ForgottenTurn]) -> None:
        """Subtract the bytes of turns that were deleted.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        fields: dict[str, int] = {}
        for turn in turns:
            hour = f"h:{int(turn.accepted_at // 3600)}"
            fields[hour] = fields.get(hour, 0) + turn.input_bytes + OVERHEAD
        await self._release(tenant, "", list(chain.from_iterable(fields.items())))

    async def audit(self, tenant: str, age: int, most: int = _MAX_AUDIT) -> int:
        """Correct the bytes of the conversations whose last audit is longest ago.

        Args:
            tenant: The tenant.
            age: Minimum milliseconds since the last audit.
            most: Maximum number of conversations.

        Returns:
            How many conversations were audited.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        keys = _keys(tenant)[1:]
        found = await self._call("audit", keys, [most, age, self._hours])
        counted = {c.decode(): int(size) for c, size in zip(found[::2], found[1::2], strict=True)}
        if counted:
            sizes = await self._sizes(counted)
            args = [(c, counted[c], size) for c, size in sizes.items()]
            # Pass the earlier count too, so that bytes added in the meantime are kept.
            await self._call("settle", keys, list(chain.from_iterable(args)))
        return len(counted)

    async def _sizes(self, counted: Mapping[str, int]) -> dict[str, int]:
        """Bytes in memory, as Redis estimates them."""
        with translate_errors(self._settings.redis_url):
            try:
                found = await self._ask(counted, lambda pipeline, key: pipeline.memory_usage(key))
            except redis.ResponseError:
                # Some hosted servers do not allow MEMORY USAGE. EXISTS still shows what has
                # expired.
                found = await self._ask(counted, lambda pipeline, key: pipeline.exists(key))
                return {c: counted[c] if size else 0 for c, size in found.items()}
        return found

    async def _ask(
        self, counted: Iterable[str], ask: Callable[[Any, str], object]
    ) -> dict[str, int]:
        pipeline = self._client.pipeline(transaction=False)
        for conversation_id in counted:
            keys = conversation_keys(conversation_id)
            for key in (keys.meta, keys.messages, keys.blobs):
                ask(pipeline, key)
        found = iter(await pipeline.execute())
        return {c: sum(next(found) or 0 for _ in range(3)) for c in counted}

    def _no_room(self) -> RateLimited:
        limit = self._settings.gateway_stored_bytes
        return RateLimited(
            f"conversations and turns of this key's tenant use {limit} bytes: delete some, or ask "
            "an operator to raise AGENTAPI_GATEWAY_STORED_BYTES; nothing was accepted",
            code="stored_bytes_exceeded",
            retry=False,
        )

    async def _release(self, tenant: str, turn_id: str, sizes: list[Any]) -> None:
        if turn_id or sizes:
            keys = [*_keys(tenant)[:2], _answer_key(tenant)]
            await self._call("release", keys, [turn_id, *sizes])

    async def _ended(self, flat: list[Any]) -> list[str]:
        """The turns of a list that are no longer in flight."""
        turns = [turn_id.decode() for turn_id in flat[::2]]
        ages = [int(age) for age in flat[1::2]]
        with translate_errors(self._settings.redis_url):
            pipeline = self._client.pipeline(transaction=False)
            for turn_id in turns:
                pipeline.hmget(turn_keys(turn_id).turn, ["status", "segments"])
            found = await pipeline.execute()
        return [
            turn_id
            for turn_id, age, (status, segments) in zip(turns, ages, found, strict=True)
            if (not _in_flight(status, segments) if status is not None else age > _MAX_ENQUEUE)
        ]

    async def _call(self, name: str, keys: list[str], args: list[Any]) -> Any:
        return await self._scripts.call(name, keys, args)


def _in_flight(status: bytes, segments: bytes | None) -> bool:
    # A turn may wait for its client indefinitely, so it counts again only when the client
    # continues.
    waits = status == TurnStatus.PARKED.value.encode() and segments is not None
    return status in _IN_FLIGHT and not waits


def _prefix(tenant: str) -> str:
    return f"agentapi:gateway:{{{tenant}}}"


def _answer_key(tenant: str) -> str:
    """Key of the answer to a new operation, stored for its repeats."""
    return f"{_prefix(tenant)}:op:{uuid.uuid4().hex}"


def _keys(tenant: str) -> list[str]:
    prefix = _prefix(tenant)
    return [f"{prefix}:flight", f"{prefix}:stored", f"{prefix}:checked"]
