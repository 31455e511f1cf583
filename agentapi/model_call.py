"""One model call, repeated while repeating may help."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from agentapi.errors import ProviderUnavailable
from agentapi.providers.base import ModelRequest, ModelResponse, Provider, TextDelta

if TYPE_CHECKING:
    from agentapi.loop import TurnLog

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0


def retry_delay(error: ProviderUnavailable, failures: int) -> float:
    """Seconds to wait after the given number of failures.

    What the server asked for, if it did; else exponential from 0.5 s with full jitter.
    """
    if error.retry_after is not None:
        return max(error.retry_after, 0.0)
    ceiling = min(FIRST_DELAY * 2.0 ** (failures - 1), LONGEST_DELAY)
    return random.uniform(ceiling / 2, ceiling)


async def call_model(
    provider: Provider,
    request: ModelRequest,
    log: TurnLog,
    *,
    stream: bool,
    max_retries: int,
) -> ModelResponse:
    """Call the model.

    Args:
        provider: The client.
        request: The call.
        log: Gets the deltas, and a reset when shown text is produced again.
        stream: Whether to stream at all.
        max_retries: How many failures in passing to ride out.

    Raises:
        ProviderError: The last failure.
    """
    failures = 0
    while True:
        shown = False
        try:
            if not stream:
                return await provider.complete(request)
            async for part in provider.stream(request):
                if not isinstance(part, TextDelta):
                    return part
                shown = True
                await log.delta(part.text)
            raise ProviderUnavailable(
                f"provider {provider.name!r} ended its stream without a response",
                provider=provider.name,
            )
        except ProviderUnavailable as error:
            failures += 1
            if failures > max_retries:
                raise
            delay = retry_delay(error, failures)
        if shown:
            await log.reset()
        await asyncio.sleep(delay)
