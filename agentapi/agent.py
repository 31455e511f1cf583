"""`Agent`: a definition that workers run, and a conversation that it holds on its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from agentapi.agents.definition import AgentDefinition, DefinedAgent, split_tools
from agentapi.agents.hooks import HookChain, Hooks
from agentapi.agents.output import OutputType
from agentapi.conversation.compaction import Compaction
from agentapi.conversation.messages import Message
from agentapi.conversation.user_input import UserInput, check_message, content_of
from agentapi.conversation.window import Window, as_window
from agentapi.engine.in_process import run_in_process
from agentapi.engine.loop import NoLog, TurnLog
from agentapi.ids import create_turn_id
from agentapi.memory import InMemoryMemory, Memory
from agentapi.providers import model_choices
from agentapi.settings import load_settings
from agentapi.tools import AgentTool, BaseTool, Toolbox, ToolContext, ToolSource
from agentapi.tools.threads import limit_tool_threads
from agentapi.turns import TurnResult
from agentapi.turns.budget import NO_LIMITS, Limits, Spent
from agentapi.turns.model import OutputT


class Agent(DefinedAgent[OutputT]):
    """An LLM agent: prompt, model, tools.

    Register it, and workers run its `definition` for any number of conversations, which they keep
    in Redis. On its own, ``await agent.run("...")`` holds one conversation in its `memory`.
    """

    def __init__(
        self,
        *,
        name: str = "agent",
        system_prompt: str = "",
        provider: str | Sequence[str] = "openai",
        model: str | None = None,
        tools: Sequence[BaseTool | ToolSource] = (),
        max_steps: int = 20,
        window: int | Window | None = 50,
        options: Mapping[str, Any] | None = None,
        output_type: type[OutputT] | None = None,
        output_retries: int = 2,
        limits: Limits = NO_LIMITS,
        conversation_limits: Limits = NO_LIMITS,
        hooks: Sequence[Hooks] = (),
        compact: Compaction | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Define an agent.

        Args:
            name: By which producers ask for it: a letter or digit, then at most 63 letters,
                digits, dots, dashes or underscores.
            system_prompt: Its instructions.
            provider: ``"openai"``, ``"openrouter"``, ``"gemini"``, ``"offline"``, or one of
                your own (`register_provider`); with a model as ``"openai:gpt-5"``. A list of
                them is asked in order: when one fails, the next answers.
            model: The provider's name of the model, of the first provider that names none; the
                provider's default when not given.
            tools: Functions made with `@tool`, agents (`as_tool`, `handoff`), MCP servers.
            max_steps: Most model responses in one turn, at least 1.
            window: How much history a model call gets: a number of messages, a `Window`, or
                None for all of it.
            options: Sent to the provider as they are, such as ``{"temperature": 0}``. What is
                under a provider's name is for that one alone:
                ``{"temperature": 0, "openai": {"max_completion_tokens": 300}}``.
            output_type: What the reply must be, as a type that pydantic can validate, such as a
                model; `TurnResult.output` has it. Any text when not given.
            output_retries: How often the model is told what is wrong with its reply and asked
                again, at least 0.
            limits: What one turn may spend, with all that it delegates.
            conversation_limits: What all turns of a conversation may spend together.
            hooks: Middlewares around its turns, the first outermost.
            compact: When what grows old in a conversation is summarised, by workers and in eager
                mode; never when not given. The transcript stays whole.
            memory: The conversation for `run`; a private `InMemoryMemory` when not given.

        Raises:
            InvalidAgent: A name, number or tool is not acceptable; says which.
        """
        own, sources = split_tools(name, tools)
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
            )
        )
        self._memory = memory
        self._answering: AgentDefinition[Any] | None = None
        self._remembered: dict[str, list[Message]] = {}
        self._spent = Spent()
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def __repr__(self) -> str:
        models = ", ".join(map(str, self.definition.choices))
        return f"Agent(name={self.name!r}, provider={models!r})"

    async def toolbox(self) -> Toolbox:
        """The tools that the model may call now; see `AgentDefinition.toolbox`."""
        return await self.definition.toolbox()

    @property
    def has_memory(self) -> bool:
        """Whether a conversation belongs to this object; a worker refuses such an agent."""
        return self._memory is not None

    @property
    def memory(self) -> Memory:
        """The conversation that `run` continues."""
        if self._memory is None:
            self._memory = InMemoryMemory()
        return self._memory

    def reset_memory(self) -> None:
        """Begin the conversation anew, under the same system prompt."""
        self._answering = None
        self._remembered.clear()
        self._spent = Spent()
        self.memory.reset()

    async def run(self, message: UserInput) -> str:
        """Say something and get the reply; see `run_turn`."""
        return (await self.run_turn(message)).text

    async def run_turn(self, message: UserInput) -> TurnResult[OutputT]:
        """Say something and get the reply with all that led to it.

        Turns of one agent object run one after the other. A turn that fails leaves the
        conversation as it was. Settings come from the environment as it is when the turn begins.

        Raises:
            ConfigurationError: A setting in the environment is not valid.
            InvalidMessage: The message is empty or no text.
            ProviderError: The model did not answer.
            MaxStepsExceeded: The model wanted more than `max_steps` responses.
            StoreUnavailable: Redis, with a `RedisMemory`, is out of reach.
        """
        return await self._run(message, NoLog(), stream=False)

    async def stream(self, message: UserInput) -> AsyncIterator[str]:
        """Say something and get the reply's text as it arrives, tools included.

        The turn goes on to its end only while it is read. Raises as `run_turn`.
        """
        log = _QueueLog()
        turn = asyncio.create_task(self._run(message, log, stream=True))
        turn.add_done_callback(lambda _: log.queue.put_nowait(None))
        try:
            while (text := await log.queue.get()) is not None:
                yield text
            await turn
        finally:
            if not turn.done():
                turn.cancel()
                await asyncio.gather(turn, return_exceptions=True)

    def as_tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        remembers: bool = False,
        requires_approval: bool = False,
    ) -> AgentTool:
        """A tool by which another agent's model asks this agent.

        Each call is a turn of its own, in its own conversation, on any worker; several calls of
        one response run side by side, and the turn that made them waits without a worker.

        Args:
            name: The tool's name for the model; the agent's own when not given.
            description: What the agent is good for, for the model.
            timeout: Seconds a call may take, above 0, with all that the agent asks of others.
            remembers: Whether all calls of one conversation are one conversation with this
                agent; else it knows nothing but what the call says.
            requires_approval: Whether a person must say yes before it is asked.

        Raises:
            InvalidTool: The name is no tool name, or the timeout not above 0.
        """
        return AgentTool(
            self,
            name=name,
            description=description,
            timeout=timeout,
            remembers=remembers,
            requires_approval=requires_approval,
        )

    async def _run(self, message: UserInput, log: TurnLog, *, stream: bool) -> TurnResult[OutputT]:
        content = content_of(message)
        check_message(content.text)
        # Once for the whole run: a change of the environment meanwhile is for the next one.
        settings = load_settings()
        limit_tool_threads(asyncio.get_running_loop(), settings.tool_threads)
        async with self._lock():
            memory = self.memory
            history = await asyncio.to_thread(memory.load, self.definition.window)
            result = await run_in_process(
                self._answering or self.definition,
                content,
                settings=settings,
                history=history,
                context=ToolContext(
                    conversation_id=memory.conversation_id,
                    turn_id=create_turn_id(memory.conversation_id),
                    user_id=memory.user_id,
                    tenant_id=memory.tenant_id,
                ),
                log=log,
                stream=stream,
                remembered=self._remembered,
                spent_before=self._spent,
                blobs=lambda names: asyncio.to_thread(memory.blobs, names),
            )
            self._spent += result.spent
            await asyncio.to_thread(memory.append, result.result.messages, content.blobs)
            self._answering = result.agent
            return result.result

    def _lock(self) -> asyncio.Lock:
        """A lock belongs to one event loop, an agent may meet several (`asyncio.run`)."""
        loop = asyncio.get_running_loop()
        if self._running is None or self._running[0] is not loop:
            self._running = (loop, asyncio.Lock())
        return self._running[1]


class _QueueLog(NoLog):
    """Hands the text on. Text shown before a failure is produced again after it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()

    async def delta(self, text: str) -> None:
        await self.queue.put(text)
