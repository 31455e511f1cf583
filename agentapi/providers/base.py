"""The provider protocol, and the registry that keeps one client per provider and event loop.

A provider turns a `ModelRequest` into a `ModelResponse`. It holds no conversation, does not retry
(the runtime retries durably), and raises only subclasses of `ProviderError`.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from agentapi.conversation.finish import FinishReason as FinishReason
from agentapi.conversation.messages import AssistantMessage, Message, Usage
from agentapi.errors import InvalidAgent
from agentapi.providers.loop_clients import LoopClients
from agentapi.turns.request_options import NO_SAMPLING, SAMPLING, Sampling


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSpec:
    """A tool as a model sees it: name, description and the JSON schema of its arguments.

    Attributes:
        strict: Whether to ask the provider to follow the schema exactly, if it can.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OutputSpec:
    """The type of a reply. It is compared by identity: an agent has only one, so providers can
    cache by it.

    Attributes:
        name: Name of the type: letters, digits, underscores and dashes.
        schema: Its JSON schema, always of an object.
        free: Whether any JSON object is valid.
    """

    name: str
    schema: Mapping[str, Any]
    free: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse:
    """How a model may use the tools of a request.

    Attributes:
        required: Whether it must call a tool.
        name: The tool that it must call; None leaves the choice to the model.
        parallel: Whether one response may have several calls. The agent loop keeps only the first
            call of providers that do not support this.
    """

    required: bool = False
    name: str | None = None
    parallel: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """One call of a model.

    Attributes:
        model: The provider's name of the model.
        system_prompt: Instructions; empty for none.
        messages: The selected history and the new messages, oldest first.
        tools: Tools the model may call.
        options: Added to the provider's request body unchanged, such as ``{"temperature": 0.2}``.
        output: The type of the reply; None for plain text.
        blobs: Bytes of the messages' attachments by name.
        tool_use: How the model may use the tools; None leaves it to the model.
        history: How many of the messages, from the first, belong to earlier turns. They may be left
            out if the request is too long.
        sampling: Options from the turn's request. The provider uses those that it supports
            (`register_provider`). They take precedence over `options`, but never raise a limit in
            them.
    """

    model: str
    system_prompt: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    output: OutputSpec | None = None
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    tool_use: ToolUse | None = None
    history: int = 0
    sampling: Sampling = NO_SAMPLING


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelResponse:
    """A complete response of a model.

    Attributes:
        finish: Why the model stopped.
        model: The model that answered, such as ``openai:gpt-5``; set by the provider's caller.
        estimate: Estimated tokens of the request as it was sent; also set by the caller.
    """

    message: AssistantMessage
    usage: Usage
    finish: FinishReason
    model: str | None = None
    estimate: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDelta:
    """A piece of the response's text, as it arrives.

    Attributes:
        refusal: Whether it is part of a refusal to answer.
    """

    text: str
    refusal: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CallDelta:
    """A piece of a tool call's arguments, as it arrives. Providers need not send any.

    Attributes:
        index: The call's place among the calls of the response, from 0.
        name: Name of the tool.
        arguments: The piece of JSON text.
    """

    index: int
    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TextReset:
    """Discard the text and calls so far: another provider starts again."""


StreamPart: TypeAlias = TextDelta | CallDelta | TextReset | ModelResponse


class Provider(Protocol):
    """A model provider. A client is used from one event loop only.

    A provider that accepts images and files sets ``takes_attachments = True``. For other providers,
    attachments of earlier messages are replaced by a short text, and a message with new ones is
    refused, so that the agent's next provider is asked.
    """

    @property
    def name(self) -> str:
        """The name that agents use, and the key of its `provider_data`."""
        ...

    @property
    def default_model(self) -> str:
        """The model for agents that do not name one."""
        ...

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Call the model and wait for the complete response.

        Raises:
            ProviderUnavailable: Trying again may help.
            ProviderRejected: Trying again will not help.
            ProviderMisconfigured: The key, the model or a permission is wrong.
        """
        ...

    def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """Call the model; yields pieces of text, and finally the complete `ModelResponse`.

        Raises:
            ProviderError: As in `complete`; also when the stream ends early.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


@runtime_checkable
class CheckedProvider(Protocol):
    """An optional protocol of providers, by which `agentapi doctor` and workers check them."""

    async def check(self, models: Collection[str]) -> None:
        """Check the address, the key and the models, without spending tokens.

        It has a few seconds. A provider without this method is not checked.

        Args:
            models: The models that agents use.

        Raises:
            ProviderUnavailable: The server cannot be reached.
            ProviderMisconfigured: The key or a model is wrong.
        """
        ...


ProviderFactory: TypeAlias = Callable[[], Provider]


class ProviderRegistry:
    """Provider factories by name, and one client per factory and event loop.

    An SDK's client, like the aiohttp session below it, is bound to the event loop on which it first
    ran. So a client lives as long as its loop.
    """

    def __init__(self) -> None:
        self._factories: dict[str, ProviderFactory] = {}
        self._clients: LoopClients[str, Provider] = LoopClients()
        self._sampling: dict[str, frozenset[str]] = {}

    def register(self, name: str, factory: ProviderFactory, sampling: Iterable[str] = ()) -> None:
        """Register `factory` for provider `name`; replaces an earlier one.

        Args:
            name: The provider's name.
            factory: Makes a client.
            sampling: The fields of `ModelRequest.sampling` that its clients support.

        Raises:
            InvalidAgent: The name is empty or contains a colon, or a field does not exist.
        """
        if not name or ":" in name:
            raise InvalidAgent(
                f"{name!r} is not a valid provider name: expected one or more characters without a "
                "colon, which separates the provider from the model in "
                "Agent(provider='openai:gpt-5')"
            )
        supported = frozenset(sampling)
        if unknown := sorted(supported - SAMPLING):
            raise InvalidAgent(
                f"provider {name!r}: sampling has {', '.join(unknown)}, expected names of "
                f"{', '.join(sorted(SAMPLING))}"
            )
        self._factories[name] = factory
        self._sampling[name] = supported
        self._clients.forget(name)

    @contextmanager
    def replaced(self, name: str, factory: ProviderFactory) -> Iterator[None]:
        """Use `factory` for provider `name` within a `with` block, then restore the old one."""
        before = self._factories.get(name)
        sampling = self.sampling(name)
        self.register(name, factory, sampling)
        try:
            yield
        finally:
            if before is None:
                self.register(name, factory)
                del self._factories[name]
            else:
                self.register(name, before, sampling)

    def sampling(self, name: str) -> frozenset[str]:
        """The fields of `ModelRequest.sampling` that a provider supports."""
        return self._sampling.get(name, frozenset())

    def check(self, name: str) -> None:
        """Check that a provider is registered.

        Raises:
            InvalidAgent: No provider with that name is registered.
        """
        if name not in self._factories:
            known = ", ".join(sorted(n for n in self._factories if not n.startswith("agentapi.")))
            raise InvalidAgent(
                f"unknown provider {name!r}: expected one of {known}; "
                "add your own with register_provider(name, factory)"
            )

    def get(self, name: str) -> Provider:
        """Return the running loop's client of the provider. The first call creates it.

        Raises:
            InvalidAgent: No provider with that name is registered.
            ProviderMisconfigured: The client cannot be created, for example without a key.
            RuntimeError: No event loop is running.
        """
        self.check(name)
        return self._clients.get(name, self._factories[name])

    def hold(self, holder: object, names: Iterable[str]) -> None:
        """See `LoopClients.hold`."""
        self._clients.hold(holder, names)

    async def release(self, holder: object) -> None:
        """See `LoopClients.release`."""
        await self._clients.release(holder)

    async def aclose(self) -> None:
        """Close the running loop's clients; see `LoopClients.aclose`."""
        await self._clients.aclose()
