"""One model call, repeated while repeating may help."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from agentapi.decoding.plain import Pieces, clean_message, clean_text, clean_usage
from agentapi.errors import (
    NoProviderAvailable,
    ProviderHeld,
    ProviderUnavailable,
    TurnParked,
)
from agentapi.providers.base import ModelRequest, ModelResponse, Provider, TextDelta, TextReset

if TYPE_CHECKING:
    from agentapi.engine.loop import TurnLog

T = TypeVar("T")

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
LONGEST_SPREAD: Final = 15.0


def retry_delay(error: ProviderUnavailable, failures: int) -> float:
    """Seconds to wait after the given number of failures.

    What the server asked for, if it did; else exponential from 0.5 s with full jitter. Of several
    providers, the earliest.
    """
    if isinstance(error, NoProviderAvailable):
        return min(retry_delay(cause, failures) for cause in error.causes)
    if error.retry_after is not None:
        return max(error.retry_after, 0.0)
    ceiling = min(FIRST_DELAY * 2.0 ** (failures - 1), LONGEST_DELAY)
    return random.uniform(ceiling / 2, ceiling)


def spread(delay: float) -> float:
    """The delay and up to a quarter more, so that those who wait do not all wake at once."""
    return delay + random.uniform(0, min(delay / 4, LONGEST_SPREAD))


def _causes(error: ProviderUnavailable) -> tuple[ProviderUnavailable, ...]:
    return error.causes if isinstance(error, NoProviderAvailable) else (error,)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How a model call that fails in passing is repeated.

    Attributes:
        max_retries: How many failures to ride out.
        failures: How many of them came before, in an earlier attempt of the turn.
        park_after: A longer wait than this, in seconds, is left to the caller; None waits here,
            however long.
    """

    max_retries: int = 3
    failures: int = 0
    park_after: float | None = None


async def call_model(
    provider: Provider,
    prepare: Callable[[], Awaitable[ModelRequest]],
    log: TurnLog,
    *,
    stream: bool,
    retry: RetryPolicy,
) -> ModelResponse:
    """Call the model.

    Args:
        provider: The client.
        prepare: Makes the call; what it raises is treated as the provider's own.
        log: Gets the deltas, and a reset when shown text is produced again.
        stream: Whether to stream at all.
        retry: What to do about failures in passing.

    Raises:
        ProviderError: The last failure.
        TurnParked: The next try is further away than `retry.park_after`.
    """
    shown = _Shown(log)

    async def attempt() -> ModelResponse:
        request = await prepare()
        if not stream:
            return _clean(await provider.complete(request))
        async for part in provider.stream(request):
            match part:
                case ModelResponse():
                    await shown.end()
                    return _clean(part)
                case TextDelta():
                    await shown.delta(part.text)
                case TextReset():
                    await shown.reset()
        raise ProviderUnavailable(
            f"provider {provider.name!r} ended its stream without a response",
            provider=provider.name,
        )

    return await ride_out(attempt, retry, again=shown.reset)


def _clean(response: ModelResponse) -> ModelResponse:
    """The answer as it can be stored, whatever the provider made of it."""
    return replace(
        response,
        message=clean_message(response.message),
        usage=clean_usage(response.usage),
        model=None if response.model is None else clean_text(response.model),
    )


class _Shown:
    """Text that was shown and may have to be taken back."""

    def __init__(self, log: TurnLog) -> None:
        self._log = log
        self._pieces = Pieces()
        self._any = False

    async def delta(self, text: str) -> None:
        await self._show(self._pieces.add(text))

    async def end(self) -> None:
        await self._show(self._pieces.end())

    async def _show(self, text: str) -> None:
        if text:
            self._any = True
            await self._log.delta(text)

    async def reset(self) -> None:
        self._pieces = Pieces()
        if self._any:
            self._any = False
            await self._log.reset()


async def _nothing() -> None:
    pass


async def ride_out(
    attempt: Callable[[], Awaitable[T]],
    retry: RetryPolicy,
    *,
    again: Callable[[], Awaitable[None]] = _nothing,
) -> T:
    """Try until it works, or `retry` has had enough.

    Args:
        attempt: What is tried.
        retry: What to do about failures in passing.
        again: Called before it is tried again here.

    Raises:
        ProviderError: The last failure.
        TurnParked: The next try is further away than `retry.park_after`.
    """
    failures = retry.failures
    while True:
        try:
            return await attempt()
        except ProviderUnavailable as error:
            held = [isinstance(cause, ProviderHeld) for cause in _causes(error)]
            failures += not all(held)
            # A provider that was not asked yet may still answer.
            if failures > retry.max_retries and not any(held):
                raise
            delay = spread(retry_delay(error, failures))
            if retry.park_after is not None and delay > retry.park_after:
                raise TurnParked(
                    f"{error.source} is tried again in {delay:.0f} s",
                    delay=delay,
                    failures=failures,
                ) from error
        await again()
        await asyncio.sleep(delay)
