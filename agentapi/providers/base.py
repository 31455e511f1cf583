"""What a model provider is: one small protocol, and the process's one client of each.

A provider turns a `ModelRequest` into a `ModelResponse`. It holds no conversation, does not
retry (the runtime does, durably) and raises only `ProviderError` subclasses.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from agentapi.conversation.messages import AssistantMessage, Message, Usage
from agentapi.errors import InvalidAgent


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSpec:
    """A tool as a model sees it: name, description, JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OutputSpec:
    """The type of a reply. Compared by identity: an agent has one, so providers can cache by it.

    Attributes:
        name: Of the type; letters, digits, underscores, dashes.
        schema: JSON schema of an object.
    """

    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """One call of a model.

    Attributes:
        model: The provider's name of the model.
        system_prompt: Instructions; empty for none.
        messages: The window of history, oldest first, the new messages last.
        tools: Tools the model may call.
        options: Passed to the provider's request body as they are, such as
            ``{"temperature": 0.2}``.
        output: What the reply must be; None for any text.
        blobs: Bytes of the messages' attachments by their names.
    """

    model: str
    system_prompt: str
    messages: Sequence[Message]
    tools: Sequence[ToolSpec] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    output: OutputSpec | None = None
    blobs: Mapping[str, bytes] = field(default_factory=dict)


class FinishReason(StrEnum):
    """Why the model stopped."""

    STOP = "stop"
    TOOL_CALLS = "tool_calls"
    LENGTH = "length"
    FILTERED = "filtered"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelResponse:
    """What the model answered, whole.

    Attributes:
        model: Who answered, such as ``openai:gpt-5``; providers leave it to their caller.
    """

    message: AssistantMessage
    usage: Usage
    finish: FinishReason
    model: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDelta:
    """A piece of the answer's text, as it arrives."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TextReset:
    """The text so far is void: another provider begins anew."""


StreamPart: TypeAlias = TextDelta | TextReset | ModelResponse


class Provider(Protocol):
    """A model provider. Implementations are used from one event loop only."""

    @property
    def name(self) -> str:
        """The name under which agents ask for it, and the key of its `provider_data`."""
        ...

    @property
    def default_model(self) -> str:
        """The model of agents that name none."""
        ...

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Call the model and wait for the whole answer.

        Raises:
            ProviderUnavailable: Trying again may help.
            ProviderRejected: It will not.
            ProviderMisconfigured: Key, model or permission is wrong.
        """
        ...

    def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """Call the model; yields the text's pieces, and the whole `ModelResponse` last.

        Raises:
            ProviderError: As `complete`; also when the stream ends before it is complete.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


ProviderFactory: TypeAlias = Callable[[], Provider]


class ProviderRegistry:
    """Factories by name, and one client a factory and event loop.

    An SDK's client is bound to the event loop that it first ran on (so are aiohttp's
    sessions below it), so a client lives as long as its loop.
    """

    def __init__(self) -> None:
        self._factories: dict[str, ProviderFactory] = {}
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Provider]] = (
            weakref.WeakKeyDictionary()
        )

    def register(self, name: str, factory: ProviderFactory) -> None:
        """Make `factory` the maker of provider `name`; replaces an earlier one.

        Raises:
            InvalidAgent: The name is empty or has a colon.
        """
        if not name or ":" in name:
            raise InvalidAgent(
                f"{name!r} is no provider name: expected some characters without a colon, which "
                "separates provider and model in Agent(provider='openai:gpt-5')"
            )
        self._factories[name] = factory
        for clients in self._clients.values():
            clients.pop(name, None)

    @contextmanager
    def replaced(self, name: str, factory: ProviderFactory) -> Iterator[None]:
        """Let `factory` make provider `name` for a while; then it is as before."""
        before = self._factories.get(name)
        self.register(name, factory)
        try:
            yield
        finally:
            if before is None:
                self.register(name, factory)
                del self._factories[name]
            else:
                self.register(name, before)

    def check(self, name: str) -> None:
        """Raises:
        InvalidAgent: No provider of that name is registered.
        """
        if name not in self._factories:
            known = ", ".join(sorted(n for n in self._factories if not n.startswith("agentapi.")))
            raise InvalidAgent(
                f"unknown provider {name!r}: expected one of {known}; "
                "add your own with register_provider(name, factory)"
            )

    def get(self, name: str) -> Provider:
        """The running loop's client of the provider; made at the first call.

        Raises:
            InvalidAgent: No provider of that name is registered.
            ProviderMisconfigured: The client cannot be made, such as for want of a key.
            RuntimeError: No event loop is running.
        """
        self.check(name)
        clients = self._clients.setdefault(asyncio.get_running_loop(), {})
        if name not in clients:
            clients[name] = self._factories[name]()
        return clients[name]

    async def aclose(self) -> None:
        """Close the running loop's clients."""
        clients = self._clients.pop(asyncio.get_running_loop(), {})
        for client in clients.values():
            await client.aclose()
