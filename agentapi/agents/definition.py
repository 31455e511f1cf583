"""The definition of an agent: what workers run, for any number of conversations."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, cast

from agentapi.agents.context_type import ContextType, inherits
from agentapi.agents.functions import (
    PromptFunction,
    ToolsFunction,
    check_function,
    check_prompt,
    check_tool_contexts,
)
from agentapi.agents.hooks import HookChain
from agentapi.agents.names import is_agent_name
from agentapi.agents.output import OutputType
from agentapi.conversation.compaction import Compaction
from agentapi.conversation.finish import OnIncomplete
from agentapi.conversation.window import Window
from agentapi.decoding.shown import shown
from agentapi.errors import InvalidAgent
from agentapi.providers import ModelChoice, check_options
from agentapi.tools import AgentTool, BaseTool, Handoff, Toolbox, ToolSource
from agentapi.turns.budget import Limits
from agentapi.turns.context import ContextT
from agentapi.turns.model import OutputT
from agentapi.turns.request_policy import RequestPolicy


def check_patience(agent: str, patience: object) -> None:
    """Check `Agent(patience=...)`.

    Raises:
        InvalidAgent: It is not a number of seconds.
    """
    number = isinstance(patience, int | float) and not isinstance(patience, bool)
    if patience is not None and not (number and 0 <= cast("float", patience) < math.inf):
        raise InvalidAgent(
            f"agent {agent!r}: patience is {shown(patience)}, expected seconds, 0 or more"
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AgentDefinition(Generic[OutputT]):
    """Prompt, models, tools and limits. It holds no conversation, so turns can share it.

    Attributes:
        name: The name by which producers address the agent.
        system_prompt: Its instructions, or a function that returns the instructions of a turn.
        choices: The models to ask, in order.
        tools: The tools that were given as a list.
        tool_sources: Servers that are asked for more tools.
        max_steps: Maximum model responses in one turn.
        window: How much history a model call gets.
        options: Options for the providers; see `options_for`.
        output: The type of the reply; None for any text.
        output_retries: How many invalid replies the model may correct.
        limits: What one turn may spend, including everything that it delegates.
        conversation_limits: What all turns of a conversation may spend together.
        hooks: Middleware around its turns.
        compact: When conversations are summarised; None for never.
        patience: Seconds that a turn waits for an unavailable provider; None for the setting.
        on_incomplete: What a turn does with a reply that the model did not complete.
        max_continuations: How many times the model may continue a reply.
        accepts: What requests may decide; None for the setting.
        context: The type of the context that producers send; None for any JSON object.
        make_tools: A function that returns the tools of a turn, in place of `tools`; None if they
            are the same for all turns.
    """

    name: str
    system_prompt: str | PromptFunction[Any]
    choices: tuple[ModelChoice, ...]
    tools: tuple[BaseTool, ...]
    tool_sources: tuple[ToolSource, ...]
    max_steps: int
    window: Window
    options: Mapping[str, Any]
    output: OutputType[OutputT] | None
    output_retries: int
    limits: Limits
    conversation_limits: Limits
    hooks: HookChain
    compact: Compaction | None
    patience: float | None = None
    on_incomplete: OnIncomplete = OnIncomplete.ACCEPT
    max_continuations: int = 5
    accepts: RequestPolicy | None = None
    context: ContextType[Any] | None = None
    make_tools: ToolsFunction[Any] | None = None
    _toolbox: Toolbox = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not is_agent_name(self.name):
            raise InvalidAgent(
                f"{shown(self.name)} is not a valid agent name: expected a letter or digit, then "
                "at most 63 letters, digits, dots, dashes or underscores"
            )
        if self.max_steps < 1:
            raise InvalidAgent(
                f"agent {self.name!r}: max_steps is {self.max_steps}, expected 1 or more"
            )
        if self.output_retries < 0:
            raise InvalidAgent(
                f"agent {self.name!r}: output_retries is {self.output_retries}, expected 0 or more"
            )
        check_patience(self.name, self.patience)
        if self.max_continuations < 1:
            raise InvalidAgent(
                f"agent {self.name!r}: max_continuations is {self.max_continuations}, expected 1 "
                "or more"
            )
        check_options(self.name, self.options, self.choices)
        check_prompt(self.name, self.system_prompt, self.context)
        if self.make_tools is not None:
            check_function(self.name, "tools", self.make_tools, self.context, returns="tools")
        check_tool_contexts(self.name, self.tools, self.context)
        self._check_asked()
        object.__setattr__(self, "_toolbox", Toolbox(self.name, self.tools))

    def _check_asked(self) -> None:
        """Refuse tools of which every call would fail because of a missing context."""
        for tool in self.tools:
            other = tool.definition if isinstance(tool, AgentTool) else None
            if not isinstance(other, AgentDefinition) or other.context is None:
                continue
            if not inherits(self.context, other.context) and not other.context.has_default:
                raise InvalidAgent(
                    f"agent {self.name!r}: tool {tool.name!r} asks agent {other.name!r}, which has "
                    "a different context_type and would get no context: give both agents the same "
                    "context_type, give every field of the other agent's context_type a default, "
                    "or write a tool that returns delegate(..., context=...)"
                )

    @property
    def model(self) -> str | None:
        """The model of the first choice; None for its provider's default."""
        return self.choices[0].model

    async def toolbox(self) -> Toolbox:
        """The tools that the model may call now, including those of servers.

        Raises:
            ToolServerUnavailable: A server cannot be reached; trying again may help.
            InvalidAgent: A server's tool has the name of another tool, or the tools depend on the
                turn.
        """
        if self.make_tools is not None:
            raise InvalidAgent(
                f"agent {self.name!r}: its tools depend on the turn: call the tools function"
            )
        if not self.tool_sources:
            return self._toolbox
        return await toolbox_of(self.name, self.tools, self.tool_sources)

    def handoffs(self) -> dict[str, AgentDefinition[Any]]:
        """The agents that this agent's tools hand over to, if a tool has the agent object and not
        only its name."""
        return handoffs_of(self.tools)

    def handoff_to(self, name: str) -> AgentDefinition[Any] | None:
        """The agent of that name, if one of this agent's tools hands over to it."""
        return self.handoffs().get(name)


async def toolbox_of(
    agent: str,
    tools: Sequence[BaseTool],
    sources: Sequence[ToolSource],
    missing: Sequence[str] = (),
) -> Toolbox:
    """The tools, including those of servers; raises the same as `AgentDefinition.toolbox`."""
    more = await asyncio.gather(*(source.tools() for source in sources))
    return Toolbox(agent, [*tools, *chain.from_iterable(more)], missing)


def agents_of(tools: Sequence[BaseTool]) -> dict[str, AgentDefinition[Any]]:
    """The agents that tools ask or hand over to, if a tool has the agent object and not only its
    name."""
    return {
        tool.definition.name: tool.definition
        for tool in tools
        if isinstance(tool, AgentTool | Handoff) and isinstance(tool.definition, AgentDefinition)
    }


def handoffs_of(tools: Sequence[BaseTool]) -> dict[str, AgentDefinition[Any]]:
    """The agents that tools hand over to, if a tool has the agent object and not only its name."""
    return {
        tool.target: tool.definition
        for tool in tools
        if isinstance(tool, Handoff) and isinstance(tool.definition, AgentDefinition)
    }


class DefinedAgent(Generic[OutputT, ContextT]):
    """The base of `Agent`: an object with a definition.

    Code that only needs definitions (the registry, workers) depends on this class, not on the one
    that runs turns.
    """

    def __init__(self, definition: AgentDefinition[OutputT]) -> None:
        self.definition = definition

    @property
    def name(self) -> str:
        """The name by which producers address the agent."""
        return self.definition.name


def on_incomplete_of(agent: str, value: object) -> OnIncomplete:
    """Read `Agent(on_incomplete=...)`.

    Raises:
        InvalidAgent: It is not one of the policies.
    """
    try:
        return OnIncomplete(value)  # type: ignore[arg-type]
    except ValueError:
        known = ", ".join(repr(policy.value) for policy in OnIncomplete)
        raise InvalidAgent(
            f"agent {agent!r}: on_incomplete is {shown(value)}, expected one of {known}"
        ) from None


def split_tools(
    agent: str, tools: Sequence[object]
) -> tuple[tuple[BaseTool, ...], tuple[ToolSource, ...]]:
    """Split `Agent(tools=...)` into tools and servers that are asked for tools.

    Raises:
        InvalidAgent: An entry is neither, or two servers have the same name.
    """
    found: list[BaseTool] = []
    sources: list[ToolSource] = []
    for tool in tools:
        if isinstance(tool, BaseTool):
            found.append(tool)
        elif callable(getattr(tool, "tools", None)):
            sources.append(cast("ToolSource", tool))
        else:
            name = getattr(tool, "__name__", None) or shown(tool)
            raise InvalidAgent(f"agent {agent!r}: {name} is not a tool; decorate it with @tool")
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise InvalidAgent(f"agent {agent!r}: two servers have the same name: {', '.join(names)}")
    return tuple(found), tuple(sources)
