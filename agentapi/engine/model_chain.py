"""Several providers as one: when one fails in a way that another may not, the next is asked."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from agentapi.admission import Caller, ProviderGate, here
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.attachments import taken_by
from agentapi.conversation.messages import Attachment
from agentapi.errors import (
    AttachmentRefused,
    ContextTooLong,
    NoProviderAvailable,
    ProviderError,
    ProviderHeld,
    ProviderMisconfigured,
    ProviderUnavailable,
)
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

    Each call begins with the first. It waits for nothing: when all have failed it says so, and
    its caller waits.
    """

    def __init__(
        self, choices: Sequence[ModelChoice], gate: ProviderGate, call: Caller = here
    ) -> None:
        """Make one.

        Args:
            choices: Whom to ask, at least one.
            gate: Which every call passes.
            call: For the gate's round trips to Redis.
        """
        self._choices = choices
        self._gate = gate
        self._call = call
        self.name = ", ".join(map(str, choices))

    @property
    def default_model(self) -> str:
        """The first choice's model, if it names one; every choice is asked for its own."""
        return self._choices[0].model or ""

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`."""
        async for part in self._ask(request, stream=False):
            if isinstance(part, ModelResponse):
                return part
        raise _no_response(self.name)

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """See `Provider.stream`. Text of a choice that failed is followed by a `TextReset`."""
        async for part in self._ask(request, stream=True):
            yield part

    async def aclose(self) -> None:
        """Nothing to close: the clients belong to the event loop."""

    async def _ask(self, request: ModelRequest, *, stream: bool) -> AsyncIterator[StreamPart]:
        failures: list[ProviderError] = []
        for choice in self._choices:
            shown = False
            try:
                async for part in self._ask_one(choice, request, stream=stream):
                    shown = True
                    yield part
            except ProviderError as error:
                failures.append(error)
                if len(self._choices) > 1:
                    _tell(choice, error)
                if not another_may_help(error):
                    break
                if shown and len(self._choices) > 1:
                    yield TextReset()
            else:
                return
        raise _failure(failures)

    async def _ask_one(
        self, choice: ModelChoice, request: ModelRequest, *, stream: bool
    ) -> AsyncIterator[StreamPart]:
        """Text, and the response last, with the name of who gave it."""
        name, alone = choice.provider, len(self._choices) == 1
        provider = providers.get(name)
        asked = replace(
            request,
            model=choice.model or provider.default_model,
            options=options_for(choice, request.options, self._choices),
        )
        if not getattr(provider, "takes_attachments", False):
            asked = replace(
                asked, messages=taken_by(f"provider {name!r}", _nothing, asked.messages)
            )
        permit = await self._gate.enter(name, asked, alone=alone, call=self._call)
        response: ModelResponse | None = None
        try:
            async for part in _parts(provider, asked, stream=stream):
                if isinstance(part, ModelResponse):
                    response = checked(part, name)
                else:
                    yield part
            if response is None:
                raise _no_response(name)
        except ProviderError as error:
            await self._gate.failed(permit, error, call=self._call)
            raise
        await self._gate.answered(permit, response.usage, call=self._call)
        yield replace(response, model=f"{name}:{asked.model}")


def chain_of(agent: AgentDefinition, *, gate: ProviderGate, call: Caller = here) -> Provider:
    """Whom the agent asks.

    Args:
        agent: The agent.
        gate: What the process knows of its providers.
        call: For the gate's round trips to Redis.
    """
    return ModelChain(agent.choices, gate, call)


def another_may_help(error: ProviderError) -> bool:
    """Whether the error is the provider's own, rather than one of a request that all refuse."""
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
    """One error for all: to be tried again if any of them is.

    Also when the last one refused: those before it were busy, and may take what it did not.
    """
    again = [error for error in failures if isinstance(error, ProviderUnavailable)]
    last = failures[-1]
    if len(failures) == 1 or not (again or another_may_help(last)):
        return last
    text = "none of the agent's providers answered: " + "; ".join(map(str, failures))
    if again:
        return NoProviderAvailable(text, causes=again)
    kinds = (ContextTooLong, AttachmentRefused, ProviderMisconfigured)
    kind = next(kind for kind in kinds if any(isinstance(error, kind) for error in failures))
    return kind(text, provider=last.provider, status=last.status)


def _tell(choice: ModelChoice, error: ProviderError) -> None:
    """A line for operators, without the error's text, which may quote what people said."""
    level = logging.INFO
    if isinstance(error, ProviderMisconfigured):
        level = logging.WARNING
    elif isinstance(error, ProviderHeld):
        level = logging.DEBUG
    log.log(
        level, "provider.failed provider=%s error=%s status=%s", choice, error.code, error.status
    )
