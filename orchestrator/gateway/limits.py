"""What a tenant may use: requests a minute, turns in flight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio

from agentapi import Settings
from agentapi.stores.connection import translate_errors
from agentapi.stores.keys import turn_keys
from agentapi.turns import TERMINAL, TurnStatus
from orchestrator.gateway.errors import RateLimited
from orchestrator.gateway.scripts import Scripts

_IN_FLIGHT: Final = frozenset(
    status.value.encode() for status in TurnStatus if status not in TERMINAL
)

_LONGEST_ENQUEUE: Final = 60_000
"""Milliseconds; a turn that was admitted longer ago and is not in Redis never will be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowance:
    """Where a tenant's rate stands after a request.

    Attributes:
        limit: Requests a minute.
        left: Requests that may follow at once.
        reset: Seconds until all of them may.
    """

    limit: int
    left: int
    reset: float

    def headers(self) -> dict[str, str]:
        """OpenAI's headers."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.left),
            "x-ratelimit-reset-requests": f"{self.reset:.3f}s",
        }


class Limiter:
    """Holds tenants to their limits, over all gateways, by Redis's clock."""

    def __init__(self, settings: Settings, client: redis.asyncio.Redis, scripts: Scripts) -> None:
        self._settings = settings
        self._client = client
        self._scripts = scripts

    async def request(self, tenant: str) -> tuple[Allowance | None, RateLimited | None]:
        """Count a request.

        Returns:
            The allowance, None without a limit; and the error to raise when it is used up.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        limit = self._settings.gateway_requests_per_minute
        if not limit:
            return None, None
        reply = await self._call("rate", [f"agentapi:gateway:{tenant}:rate"], [limit])
        allowed, left, reset, wait = (int(value) for value in reply)
        allowance = Allowance(limit=limit, left=left, reset=reset / 1000)
        if allowed:
            return allowance, None
        refusal = RateLimited(
            f"more than {limit} requests a minute: wait as `retry-after` says, or have "
            "AGENTAPI_GATEWAY_REQUESTS_PER_MINUTE raised",
            retry_after=wait / 1000,
        )
        return allowance, refusal

    async def admit(self, tenant: str, turn_id: str) -> None:
        """Count a turn in flight, until it ends.

        Raises:
            RateLimited: The tenant has as many as it may.
            StoreUnavailable: Redis is out of reach.
        """
        limit = self._settings.gateway_turns_in_flight
        if not limit:
            return
        keys = [_flight_key(tenant)]
        reply = await self._call("admit", keys, [limit, turn_id])
        if reply[0] == b"full":
            ended = await self._ended(reply[1:])
            reply = await self._call("admit", keys, [limit, turn_id, *ended])
        if reply[0] == b"full":
            raise RateLimited(
                f"{limit} turns of this key's tenant have not ended: wait for some of them, or "
                "have AGENTAPI_GATEWAY_TURNS_IN_FLIGHT raised; nothing was accepted",
                code="turns_in_flight_exceeded",
                retry_after=1,
            )

    async def withdraw(self, tenant: str, turn_id: str) -> None:
        """Forget a turn that was admitted but not accepted.

        Raises:
            StoreUnavailable: Redis is out of reach.
        """
        with translate_errors(self._settings.redis_url):
            await self._client.zrem(_flight_key(tenant), turn_id)

    async def _ended(self, flat: list[Any]) -> list[str]:
        """Those of the turns in flight that are no longer."""
        turns = [turn_id.decode() for turn_id in flat[::2]]
        ages = [int(age) for age in flat[1::2]]
        with translate_errors(self._settings.redis_url):
            pipeline = self._client.pipeline(transaction=False)
            for turn_id in turns:
                pipeline.hget(turn_keys(turn_id).turn, "status")
            found = await pipeline.execute()
        return [
            turn_id
            for turn_id, age, status in zip(turns, ages, found, strict=True)
            if (status not in _IN_FLIGHT if status is not None else age > _LONGEST_ENQUEUE)
        ]

    async def _call(self, name: str, keys: list[str], args: list[Any]) -> Any:
        with translate_errors(self._settings.redis_url):
            return await self._scripts.call(name, keys, args)


def _flight_key(tenant: str) -> str:
    return f"agentapi:gateway:{tenant}:flight"
