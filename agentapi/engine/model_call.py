"""One model call, with retries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from agentapi.conversation.cleaning import clean_message, clean_usage
from agentapi.decoding.plain import Pieces, clean_text
from agentapi.engine.patience import RetryPolicy, ride_out
from agentapi.engine.turn_log import TurnLog
from agentapi.errors import ProviderUnavailable
from agentapi.providers.base import (
    CallDelta,
    ModelRequest,
    ModelResponse,
    Provider,
    TextDelta,
    TextReset,
)


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
        calls_shown: Names of the tools whose calls' arguments are streamed as they arrive.

    Raises:
        ProviderError: The last failure.
        TurnParked: The turn must try again later, without a worker meanwhile.
    """
    shown = _Shown(log)

    async def attempt() -> ModelResponse:
        request = await prepare()
        if not stream:
            return _clean(await provider.complete(request))
        response: ModelResponse | None = None
        # Read to the end: if a generator is left early, asyncio starts a task to close it.
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
