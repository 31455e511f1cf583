"""Several providers as one: if one fails and another may succeed, the next one is asked."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from agentapi.admission import Caller, ProviderGate, here
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.attachments import taken_by
from agentapi.conversation.messages import Attachment
from agentapi.engine.fitting import Contexts, Fitting
from agentapi.engine.measuring import ModelCallMeter
from agentapi.engine.tracing import ChatSpan
from agentapi.errors import (
    AttachmentRefused,
    ContextTooLong,
    NoProviderAvailable,
    ProviderAway,
    ProviderError,
    ProviderHeld,
    ProviderMisconfigured,
    ProviderUnavailable,
)
from agentapi.logs import line
from agentapi.providers import (
    ModelChoice,
    ModelRequest,
    ModelResponse,
    Provider,
    StreamPart,
    TextReset,
    options_for,
    providers,
)
from agentapi.providers.answers import checked

log = logging.getLogger("agentapi.provider")


class ModelChain:
    """A `Provider` that asks an agent's choices in order, until one answers.

    Each call begins with the first choice. The chain itself never waits: when all choices have
    failed it raises an error, and its caller waits.
    """

    def __init__(
        self,
        choices: Sequence[ModelChoice],
        gate: ProviderGate,
        call: Caller = here,
        contexts: Contexts | None = None,
    ) -> None:
        """Create a chain.

        Args:
            choices: The models to ask, at least one.
            gate: Every call passes through it.
            call: For the gate's round trips to Redis.
            contexts: What the models accept; it learns more.
        """
        self._contexts = Contexts() if contexts is None else contexts
        self._choices = choices
        self._gate = gate
        self._call = call
        self.name = ", ".join(map(str, choices))

    @property
    def default_model(self) -> str:
        """The model of the first choice, if it names one. Each choice is asked with its own
        model."""
        return self._choices[0].model or ""

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`."""
        response: ModelResponse | None = None
        # Read to the end: if a generator is left early, asyncio starts a task to close it.
        async for part in self._ask(request, stream=False):
            if isinstance(part, ModelResponse):
                response = part
        if response is None:
            raise _no_response(self.name)
        return response

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """See `Provider.stream`. A `TextReset` follows the text of a choice that failed."""
        async for part in self._ask(request, stream=True):
            yield part

    async def aclose(self) -> None:
        """Nothing to close: the clients belong to the event loop."""

    async def _ask(self, request: ModelRequest, *, stream: bool) -> AsyncIterator[StreamPart]:
        failures: dict[ModelChoice, ProviderError] = {}
        fittings: dict[ModelChoice, Fitting] = {}
        choices = self._choices
        while choices:
            for choice in choices:
                shown = False
                try:
                    async for part in self._ask_one(choice, request, fittings, stream=stream):
                        shown = True
                        yield part
                except ProviderError as error:
                    failures[choice] = error
                    if len(self._choices) > 1:
                        _log_failure(choice, error)
                    # The request itself was refused, and another provider would probably refuse it
                    # too.
                    if not another_may_help(error):
                        choices = ()
                        break
                    # Readers have seen text of an answer that will never be completed.
                    if shown and (len(self._choices) > 1 or isinstance(error, ContextTooLong)):
                        yield TextReset()
                else:
                    return
            # No provider answered. Those for which the request was too long get a shorter one.
            choices = _to_shorten(choices, failures, fittings)
        raise _failure(list(failures.values()))

    async def _ask_one(
        self,
        choice: ModelChoice,
        request: ModelRequest,
        fittings: dict[ModelChoice, Fitting],
        *,
        stream: bool,
    ) -> AsyncIterator[StreamPart]:
        """Yield text and finally the response, with the name of the model that gave it."""
        name, alone = choice.provider, len(self._choices) == 1
        provider = providers.get(name)
        messages = request.messages
        if not getattr(provider, "takes_attachments", False):
            messages = taken_by(f"provider {name!r}", _nothing, messages)
        asked = replace(
            request,
            model=choice.model or provider.default_model,
            messages=messages,
            options=options_for(choice, request.options, self._choices),
        )
        if choice not in fittings:
            fittings[choice] = self._contexts.fitting(name, asked)
        asked = fittings[choice].request
        # Charged before the call: otherwise all workers could call at the same time before any call
        # counts.
        permit = await self._gate.enter(name, asked, alone=alone, call=self._call)
        response: ModelResponse | None = None
        meter = ModelCallMeter(name, asked.model)
        try:
            with ChatSpan(name, asked) as span:
                async for part in span.around(_parts(provider, asked, stream=stream)):
                    if isinstance(part, ModelResponse):
                        response = checked(part, name)
                    else:
                        meter.shows()
                        span.shows()
                        yield part
                if response is None:
                    raise _no_response(name)
                span.answered(response)
        except ProviderError as error:
            meter.failed(error.code)
            await self._gate.failed(permit, error, call=self._call)
            raise
        except Exception:
            meter.failed("internal")
            raise
        meter.answered(response.usage)
        # Charged before the response is passed on: otherwise it would stay uncharged if the caller
        # stops listening.
        await self._gate.answered(permit, response.usage, call=self._call)
        fittings[choice].answered(response.usage.input_tokens)
        estimate = fittings[choice].estimate
        yield replace(response, model=f"{name}:{asked.model}", estimate=estimate)


def chain_of(
    agent: AgentDefinition,
    *,
    gate: ProviderGate,
    call: Caller = here,
    contexts: Contexts | None = None,
) -> Provider:
    """The agent's models as one provider.

    Args:
        agent: The agent.
        gate: The process's view of its providers.
        call: For the gate's round trips to Redis.
        contexts: What the models accept; it learns more; shared by the agents of a turn.
    """
    return ModelChain(agent.choices, gate, call, contexts)


def _to_shorten(
    choices: Sequence[ModelChoice],
    failures: Mapping[ModelChoice, ProviderError],
    fittings: Mapping[ModelChoice, Fitting],
) -> list[ModelChoice]:
    """The choices that may accept a shorter request, after shortening it for them."""
    found: list[ModelChoice] = []
    for choice in choices:
        error = failures[choice]
        if isinstance(error, ContextTooLong) and fittings[choice].shorten(error):
            found.append(choice)
    return found


def another_may_help(error: ProviderError) -> bool:
    """Whether another provider may succeed where this one failed."""
    return isinstance(
        error, ProviderUnavailable | ProviderMisconfigured | ContextTooLong | AttachmentRefused
    )


def _nothing(attachment: Attachment) -> bool:
    return False


async def _parts(
    provider: Provider, request: ModelRequest, *, stream: bool
) -> AsyncIterator[StreamPart]:
    if stream:
        async for part in provider.stream(request):
            yield part
    else:
        yield await provider.complete(request)


def _no_response(name: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"provider {name!r} ended its stream without a response", provider=name
    )


def _failure(failures: Sequence[ProviderError]) -> ProviderError:
    """One error for all: retryable if any of them is.

    This holds even if the last one refused: the busy ones before it may still accept the request.
    """
    again = [error for error in failures if isinstance(error, ProviderUnavailable)]
    last = failures[-1]
    if len(failures) == 1 or not (again or another_may_help(last)):
        return last
    text = "all of the agent's providers failed: " + "; ".join(map(str, failures))
    if again:
        return NoProviderAvailable(text, causes=again)
    kinds = (ContextTooLong, AttachmentRefused, ProviderMisconfigured)
    kind = next(kind for kind in kinds if any(isinstance(error, kind) for error in failures))
    return kind(text, provider=last.provider, status=last.status)


def _log_failure(choice: ModelChoice, error: ProviderError) -> None:
    """Log a failure without the error's text, which may quote users."""
    level = logging.INFO
    if isinstance(error, ProviderMisconfigured):
        level = logging.WARNING
    elif isinstance(error, ProviderHeld | ProviderAway):
        level = logging.DEBUG
    log.log(level, line("provider.failed", provider=choice, error=error.code, status=error.status))
