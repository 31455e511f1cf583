"""Limits the requests of each tenant per minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis.asyncio

from agentapi.redis.aio import AsyncScripts
from orchestrator.gateway.http.errors import RateLimited
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.tenants.scripts import SCRIPTS


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowance:
    """What is left of a tenant's rate after a request.

    Attributes:
        limit: Requests per minute.
        left: Requests that may follow immediately.
        reset: Seconds until `left` is `limit` again.
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


class RateLimiter:
    """Counts requests exactly, over all gateways, by Redis's clock."""

    def __init__(self, settings: GatewaySettings, client: redis.asyncio.Redis) -> None:
        self._settings = settings
        self._scripts = AsyncScripts(settings, client, SCRIPTS)

    async def request(self, tenant: str) -> tuple[Allowance | None, RateLimited | None]:
        """Count a request.

        Returns:
            The allowance, None without a limit; and the error to raise if it is used up.

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
            f"more than {limit} requests per minute: wait as long as `retry-after` says, or ask an "
            "operator to raise AGENTAPI_GATEWAY_REQUESTS_PER_MINUTE",
            retry_after=wait / 1000,
        )
        # Returned, not raised: the refusal's headers need the allowance.
        return allowance, refusal

    async def _call(self, name: str, keys: list[str], args: list[Any]) -> Any:
        return await self._scripts.call(name, keys, args)
