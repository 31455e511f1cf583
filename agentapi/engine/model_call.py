"""One model call, with retries."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from agentapi.conversation.cleaning import clean_message, clean_usage
from agentapi.decoding.plain import Pieces, clean_text
from agentapi.engine.turn_log import TurnLog
from agentapi.errors import NoProviderAvailable, ProviderHeld, ProviderUnavailable
from agentapi.providers.base import (
    CallDelta,
    ModelRequest,
    ModelResponse,
    Provider,
    TextDelta,
    TextReset,
)
from agentapi.signals import TurnParked

T = TypeVar("T")

FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
LONGEST_SPREAD: Final = 15.0


def retry_delay(error: ProviderUnavailable, failures: int) -> float:
    """Seconds to wait after the given number of failures.

    Follows the server's wish, if it has one; otherwise exponential from 0.5 s with jitter. Of
    several providers, the earliest counts.
    """
    if isinstance(error, NoProviderAvailable):
        return min(retry_delay(cause, failures) for cause in error.causes)
    if error.retry_after is not None:
        return max(error.retry_after, 0.0)
    # Jitter, because a failing provider fails many turns at the same moment.
    ceiling = min(FIRST_DELAY * 2.0 ** (failures - 1), LONGEST_DELAY)
    return random.uniform(ceiling / 2, ceiling)


def spread(delay: float) -> float:
    """The delay plus up to a quarter, so that waiting turns do not all wake together."""
    return delay + random.uniform(0, min(delay / 4, LONGEST_SPREAD))


def _causes(error: ProviderUnavailable) -> tuple[ProviderUnavailable, ...]:
    return error.causes if isinstance(error, NoProviderAvailable) else (error,)


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How a model call is retried.

    Attributes:
        max_retries: How many failures to tolerate.
        failures: How many of them an earlier attempt of the turn had.
        park_after: Waits longer than this, in seconds, are left to the caller; None waits here,
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
    calls_shown: frozenset[str] = frozenset(),
) -> ModelResponse:
    """Call the model.

    Args:
        provider: The client.
        prepare: Makes the request; its errors are treated like the provider's.
        log: Gets the deltas, and a reset when shown text is produced again.
        stream: Whether to stream.
        retry: How to retry.
        calls_shown: Names of the tools whose calls' arguments are shown while they arrive.

    Raises:
        ProviderError: The last failure.
        TurnParked: The next attempt is further away than `retry.park_after`.
    """
    shown = _Shown(log)

    async def attempt() -> ModelResponse:
        request = await prepare()
        if not stream:
            return _clean(await provider.complete(request))
        response: ModelResponse | None = None
        # Read to the end: leaving a generator early makes asyncio start a task to close it.
        async for part in provider.stream(request):
            match part:
                case ModelResponse():
                    response = part
                case TextDelta():
                    await shown.delta(part.text, refusal=part.refusal)
                case CallDelta() if part.name in calls_shown:
                    await shown.call(part)
                case TextReset():
                    await shown.reset()
        if response is None:
            raise ProviderUnavailable(
                f"provider {provider.name!r} ended its stream without a response",
                provider=provider.name,
            )
        await shown.end()
        return _clean(response)

    return await ride_out(attempt, retry, again=shown.reset)


def _clean(response: ModelResponse) -> ModelResponse:
    """The response in a form that can be stored, whatever the provider returned."""
    message, usage = clean_message(response.message), clean_usage(response.usage)
    model = None if response.model is None else clean_text(response.model)
    if message is response.message and usage is response.usage and model is response.model:
        return response
    return replace(response, message=message, usage=usage, model=model)


class _Shown:
    """Text that was shown and may have to be withdrawn."""

    def __init__(self, log: TurnLog) -> None:
        self._log = log
        self._pieces = Pieces()
        self._any = False
        self._refusal = False

    async def delta(self, text: str, *, refusal: bool) -> None:
        self._refusal = refusal
        await self._show(self._pieces.add(text))

    async def call(self, part: CallDelta) -> None:
        arguments = clean_text(part.arguments)
        if arguments:
            self._any = True
            await self._log.call_delta(part.index, part.name, arguments)

    async def end(self) -> None:
        await self._show(self._pieces.end())

    async def _show(self, text: str) -> None:
        if text:
            self._any = True
            if self._refusal:
                await self._log.delta(text, refusal=True)
            else:
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
    """Retry a call to a provider or a server of tools.

    Args:
        attempt: Makes the call.
        retry: How to retry.
        again: Called before each further attempt here.

    Raises:
        ProviderError: The last failure.
        TurnParked: The next attempt is further away than `retry.park_after`.
    """
    failures = retry.failures
    while True:
        try:
            return await attempt()
        except ProviderUnavailable as error:
            held = [isinstance(cause, ProviderHeld) for cause in _causes(error)]
            failures += not all(held)
            # A held provider has not been asked, so it may still answer.
            if failures > retry.max_retries and not any(held):
                raise
            delay = spread(retry_delay(error, failures))
            if retry.park_after is not None and delay > retry.park_after:
                raise TurnParked(
                    f"{error.source} is tried again in {delay:.0f} s",
                    delay=delay,
                    # Kept with the parked turn, so that its retries are bounded over all attempts
                    # together.
                    failures=failures,
                ) from error
        # Withdraw the text before the wait, so that readers do not look at half an answer
        # meanwhile.
        await again()
        await asyncio.sleep(delay)
