"""`Agent`: a definition that workers run, with a conversation of its own for use without
workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from agentapi.agents.clients import hold_clients, release_clients
from agentapi.agents.context_type import ContextType, stored_context
from agentapi.agents.definition import (
    AgentDefinition,
    DefinedAgent,
    on_incomplete_of,
    split_tools,
)
from agentapi.agents.functions import PromptFunction, ToolList, ToolsFunction, as_tools
from agentapi.agents.hooks import HookChain, Hooks
from agentapi.agents.output import OutputType
from agentapi.conversation.compaction import Compaction
from agentapi.conversation.finish import OnIncomplete
from agentapi.conversation.messages import Message
from agentapi.conversation.user_input import UserInput, check_message, content_of
from agentapi.conversation.window import DEFAULT_WINDOW, Window, as_window
from agentapi.engine.fitting import Contexts
from agentapi.engine.in_process import InProcessTurn
from agentapi.engine.loop import History
from agentapi.engine.turn_log import NoLog, TurnLog
from agentapi.ids import create_turn_id
from agentapi.memory import InMemoryMemory, Memory
from agentapi.providers import model_choices
from agentapi.settings import load_settings
from agentapi.tools import AgentTool, Toolbox, ToolContext
from agentapi.tools.threads import limit_tool_threads
from agentapi.turns import TurnResult
from agentapi.turns.budget import NO_LIMITS, Limits, Spent
from agentapi.turns.context import ContextT
from agentapi.turns.model import OutputT
from agentapi.turns.request_policy import RequestPolicy


class Agent(DefinedAgent[OutputT, ContextT]):
    """An LLM agent: prompt, model, tools.

    Register it, and workers run its `definition` for any number of conversations, which they keep
    in Redis. Without workers, ``await agent.run("...")`` keeps one conversation in its `memory`.
    """

    def __init__(  # noqa: PLR0913 - users see one flat list of options
        self,
        *,
        name: str = "agent",
        system_prompt: str | PromptFunction[ContextT] = "",
        provider: str | Sequence[str] = "openai",
        model: str | None = None,
        tools: ToolList | ToolsFunction[ContextT] = (),
        max_steps: int = 20,
        window: int | Window | None = DEFAULT_WINDOW,
        options: Mapping[str, Any] | None = None,
        output_type: type[OutputT] | None = None,
        output_retries: int = 2,
        limits: Limits = NO_LIMITS,
        conversation_limits: Limits = NO_LIMITS,
        hooks: Sequence[Hooks] = (),
        compact: Compaction | None = None,
        patience: float | None = None,
        on_incomplete: OnIncomplete | str = OnIncomplete.ACCEPT,
        max_continuations: int = 5,
        accepts: RequestPolicy | None = None,
        memory: Memory | None = None,
        context_type: type[ContextT] | None = None,
    ) -> None:
        """Define an agent.

        Args:
            name: How producers address it: a letter or digit, then at most 63 letters, digits,
                dots, dashes or underscores.
            system_prompt: Its instructions: text, or a function, synchronous or asynchronous, that
                takes the `TurnContext` and returns the text. It is called once per turn.
            provider: ``"openai"``, ``"openrouter"``, ``"gemini"``, ``"offline"``, or one of
                your own (`register_provider`); with a model as ``"openai:gpt-5"``. The entries of a
                list are tried in order: if one fails, the next is asked.
            model: The model, for the first provider that does not include one; the provider's
                default when not given.
            tools: Functions decorated with `@tool`, agents (`as_tool`, `handoff`), MCP servers; or
                a function that takes the `TurnContext` and returns such a list.
            max_steps: Maximum model responses in one turn, at least 1.
            window: How much history a model call gets: a `Window`, a number of messages, or
                None for as much as the model accepts. 32,000 tokens when not given.
            options: Options passed to the provider unchanged, such as ``{"temperature": 0}``.
                Options under a provider's name are for that provider only: ``{"temperature": 0,
                "openai": {"max_completion_tokens": 300}}``.
            output_type: For structured output: the type of the reply, such as a pydantic model.
                `TurnResult.output` has the value. Plain text when not given.
            output_retries: How many times the model is shown the errors of an invalid reply and
                asked again, at least 0.
            limits: What one turn may spend, including everything it delegates.
            conversation_limits: What all turns of a conversation may spend together.
            hooks: Middleware around its turns, the first outermost.
            compact: When workers (and eager mode) summarise the older part of a conversation;
                never when not given. The full transcript is kept.
            patience: Seconds that its turns wait for an unavailable provider, 0 or more;
                ``AGENTAPI_PROVIDER_PATIENCE`` when not given. `run` and eager mode do not wait:
                they fail after a few quick retries.
            on_incomplete: What a turn does with a reply that is cut off, filtered, or a refusal:
                ``"accept"``, ``"continue"`` (cut replies only), or ``"fail"``.
            max_continuations: How many times the model may continue one reply, at least 1.
            accepts: What requests to the gateway may decide about its turns, such as
                ``RequestPolicy(instructions="refuse")``; `AGENTAPI_REQUEST_POLICY` when not given.
            memory: The conversation for `run`; a private `InMemoryMemory` when not given.
            context_type: The type of the `context` that producers send with a turn: a pydantic
                model, a dataclass or a `TypedDict`. When not given, any JSON object is accepted,
                and functions receive it as a dict.

        Raises:
            InvalidAgent: A name, number, tool, function or type is not valid; the message says
                which.
        """
        listed, make_tools = as_tools(name, tools)
        own, sources = split_tools(name, listed)
        super().__init__(
            AgentDefinition(
                name=name,
                system_prompt=system_prompt,
                choices=model_choices(name, provider, model),
                tools=own,
                tool_sources=sources,
                max_steps=max_steps,
                window=as_window(window),
                options=dict(options or {}),
                output=None if output_type is None else OutputType(output_type, name),
                output_retries=output_retries,
                limits=limits,
                conversation_limits=conversation_limits,
                hooks=HookChain(hooks),
                compact=compact,
                patience=patience,
                on_incomplete=on_incomplete_of(name, on_incomplete),
                max_continuations=max_continuations,
                accepts=accepts,
                context=None if context_type is None else ContextType(context_type, name),
                make_tools=make_tools,
            )
        )
        self._memory = memory
        self._answering: AgentDefinition[Any] | None = None
        self._remembered: dict[str, list[Message]] = {}
        self._spent = Spent()
        self._contexts = Contexts()
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def __repr__(self) -> str:
        models = ", ".join(map(str, self.definition.choices))
        return f"Agent(name={self.name!r}, provider={models!r})"

    async def toolbox(self) -> Toolbox:
        """The tools that the model may call now; see `AgentDefinition.toolbox`."""
        return await self.definition.toolbox()

    @property
    def has_memory(self) -> bool:
        """Whether this object has its own conversation; workers refuse such an agent."""
        return self._memory is not None

    @property
    def memory(self) -> Memory:
        """The conversation that `run` continues."""
        if self._memory is None:
            self._memory = InMemoryMemory()
        return self._memory

    def reset_memory(self) -> None:
        """Start a new conversation with the same system prompt."""
        self._answering = None
        self._remembered.clear()
        self._contexts = Contexts()
        self._spent = Spent()
        self.memory.reset()

    async def run(
        self,
        message: UserInput,
        *,
        context: ContextT | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Send a message and return the reply; see `run_turn`."""
        return (await self.run_turn(message, context=context, metadata=metadata)).text

    async def run_turn(
        self,
        message: UserInput,
        *,
        context: ContextT | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> TurnResult[OutputT]:
        """Send a message and return the reply with every step that led to it.

        Turns of one agent object run one after the other. A turn that fails leaves the
        conversation unchanged. Settings are read from the environment once, when this is called.

        Args:
            message: Text, or a list of texts, `Image` and `File`.
            context: A value of the agent's `context_type`, or a mapping with its fields.
            metadata: For `TurnContext.metadata`.

        Raises:
            ConfigurationError: A setting in the environment is not valid.
            InvalidMessage: The message is empty or not text.
            InvalidContext: The context does not match the agent's `context_type`.
            PromptFailed: The function given as `system_prompt` failed.
            ToolsFailed: The function given as `tools` failed.
            ProviderError: The model did not answer.
            MaxStepsExceeded: The model wanted more than `max_steps` responses.
            StoreUnavailable: With a `RedisMemory`: Redis cannot be reached.
        """
        sent = self._sent(context, metadata)
        return await self._run(message, sent, NoLog(), stream=False)

    async def stream(
        self,
        message: UserInput,
        *,
        context: ContextT | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[str]:
        """Send a message and yield the reply's text as it arrives.

        The turn is cancelled when the iterator is closed early. Raises the same as `run_turn`.
        """
        log = _QueueLog()
        sent = self._sent(context, metadata)
        turn = asyncio.create_task(self._run(message, sent, log, stream=True))
        turn.add_done_callback(lambda _: log.queue.put_nowait(None))
        try:
            while (text := await log.queue.get()) is not None:
                yield text
            await turn
        finally:
            if not turn.done():
                turn.cancel()
                await asyncio.gather(turn, return_exceptions=True)

    async def aclose(self) -> None:
        """Close the connections to providers and MCP servers that `run` opened on this event loop.

        Connections that another agent on this loop uses stay open until that agent is closed. The
        agent can run again and then reconnects. ``async with agent:`` closes it at the end.
        """
        await release_clients(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def as_tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        remembers: bool = False,
        requires_approval: bool = False,
    ) -> AgentTool:
        """Make a tool that lets another agent's model ask this agent.

        Each call is a separate turn, in its own conversation, on any worker. Several calls of one
        response run in parallel, and the calling turn waits without occupying a worker. The agent
        receives the context of the calling turn, unless both agents declare a `context_type` and
        the types differ.

        Args:
            name: The tool's name for the model; the agent's own when not given.
            description: What the agent is good at; shown to the model.
            timeout: Maximum seconds of a call, above 0, including everything that the agent
                delegates.
            remembers: Whether all calls from one conversation continue the same conversation with
                this agent. Otherwise the agent sees only the message of the call.
            requires_approval: Whether a person must approve each call.

        Raises:
            InvalidTool: The name is not a valid tool name, or the timeout is not above 0.
        """
        return AgentTool(
            self,
            name=name,
            description=description,
            timeout=timeout,
            remembers=remembers,
            requires_approval=requires_approval,
        )

    def _sent(self, context: object, metadata: Mapping[str, Any] | None) -> _Sent:
        return _Sent(
            context=stored_context(context, self.definition.context),
            metadata=dict(metadata or {}),
        )

    async def _run(
        self, message: UserInput, sent: _Sent, log: TurnLog, *, stream: bool
    ) -> TurnResult[OutputT]:
        content = content_of(message)
        check_message(content.text)
        # Read once for the whole run, so that a change of the environment does not affect half of
        # it.
        settings = load_settings()
        limit_tool_threads(asyncio.get_running_loop(), settings.tool_threads)
        async with self._lock():
            hold_clients(self, self.definition)
            memory = self.memory
            messages = await asyncio.to_thread(memory.load, self.definition.window)
            turn = InProcessTurn(
                agent=self._answering or self.definition,
                content=content,
                history=History(
                    messages=messages,
                    blobs=lambda names: asyncio.to_thread(memory.blobs, names),
                ),
                settings=settings,
                context=ToolContext(
                    conversation_id=memory.conversation_id,
                    turn_id=create_turn_id(memory.conversation_id),
                    user_id=memory.user_id,
                    tenant_id=memory.tenant_id,
                    metadata=sent.metadata,
                    context=sent.context,
                ),
                log=log,
                stream=stream,
                remembered=self._remembered,
                contexts=self._contexts,
                spent_before=self._spent,
            )
            result = await turn.run()
            self._spent += result.spent
            await asyncio.to_thread(memory.append, result.result.messages, content.blobs)
            self._answering = result.agent
            return result.result

    def _lock(self) -> asyncio.Lock:
        """The lock of the running loop: an agent may see several loops (`asyncio.run`)."""
        loop = asyncio.get_running_loop()
        if self._running is None or self._running[0] is not loop:
            self._running = (loop, asyncio.Lock())
        return self._running[1]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sent:
    """A message and its context, checked."""

    context: Mapping[str, Any] | None
    metadata: Mapping[str, Any]


class _QueueLog(NoLog):
    """Forwards the text. After a failure the model produces it again from the start."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()

    async def delta(self, text: str, *, refusal: bool = False) -> None:
        await self.queue.put(text)
