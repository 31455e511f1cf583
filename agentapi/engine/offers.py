"""What an agent offers its model in one turn: the prompt and the tools.

Functions given as `system_prompt` and `tools` are called once per turn. Their results are journaled
with the agent's first recorded response, so an attempt that takes the turn over continues with the
same prompt and tools. Until then nothing depends on the results, and another attempt may call the
functions again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentapi.agents.context_type import context_for
from agentapi.agents.definition import AgentDefinition, agents_of, split_tools, toolbox_of
from agentapi.agents.functions import FunctionCaller, check_tool_contexts
from agentapi.decoding.plain import clean_text
from agentapi.engine.requested import AgentRequest
from agentapi.engine.rules import TurnRules
from agentapi.errors import InvalidAgent, PromptFailed, ToolsFailed
from agentapi.tools.base import BaseTool, Toolbox, ToolSource
from agentapi.tools.context import ToolContext
from agentapi.turns.context import TurnContext
from agentapi.turns.request_policy import RequestPolicy
from agentapi.turns.steps import ModelStep, Step, ToolStep


@dataclass(frozen=True, kw_only=True, slots=True)
class Journaled:
    """The journaled results of an agent's functions, and its policy; None for what is not
    journaled."""

    prompt: str | None = None
    offered: tuple[str, ...] | None = None
    policy: RequestPolicy | None = None


_NOTHING = Journaled()


def journaled(steps: Sequence[Step], first: str, agent: str) -> Journaled:
    """Look up what an agent's functions returned in this turn.

    Args:
        steps: The recorded steps of the turn.
        first: Name of the agent that the turn began with.
        agent: Name of the agent.
    """
    answering, found = first, _NOTHING
    for step in steps:
        if isinstance(step, ToolStep):
            answering = step.handoff or answering
        elif isinstance(step, ModelStep) and answering == agent:
            here = Journaled(prompt=step.prompt, offered=step.offered, policy=step.policy)
            found = found if here == _NOTHING else here
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Given:
    """The tools that a tools function returned, limited to those in the journal."""

    tools: tuple[BaseTool, ...]
    sources: tuple[ToolSource, ...]
    missing: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*(tool.name for tool in self.tools), *map(_source_name, self.sources))


@dataclass(kw_only=True)
class Offer:
    """An agent's prompt and tools in one turn.

    Attributes:
        agent: The agent.
        request: The turn's request, as it applies to this agent.
        context: The turn as the agent's tools and hooks see it.
        rules: Limits.
        begun: The journal of an earlier attempt.
        met: Receives the agents that a function's tools ask or hand over to.
    """

    agent: AgentDefinition
    request: AgentRequest
    context: ToolContext[Any]
    rules: TurnRules
    begun: Journaled
    met: Callable[[Mapping[str, AgentDefinition]], None]
    _prompt: str | None = field(default=None, init=False)
    _given: _Given | None = field(default=None, init=False)

    async def prompt(self) -> str:
        """The system prompt, with the instructions of the turn's request.

        Raises:
            PromptFailed: The agent's function failed.
        """
        own = "" if self.request.replaces else await self._own_prompt()
        return self.request.prompt(own)

    async def _own_prompt(self) -> str:
        function = self.agent.system_prompt
        if isinstance(function, str):
            return function
        if self._prompt is None:
            self._prompt = self.begun.prompt
        if self._prompt is None:
            self._prompt = self._checked(await self._caller.prompt(function))
        return self._prompt

    async def toolbox(self) -> Toolbox:
        """The tools that the model may call now, including those of servers.

        Raises:
            ToolsFailed: The agent's function failed.
            ToolServerUnavailable: A server cannot be reached; trying again may help.
        """
        if self.request.bare:
            return Toolbox(self.agent.name, ())
        if self.agent.make_tools is None:
            return await self.agent.toolbox()
        if self._given is None:
            returned = await self._caller.tools(self.agent.make_tools)
            accepted = self._accepted(returned)
            self.met(agents_of(accepted.tools))
            self._given = accepted
        given = self._given
        return await toolbox_of(self.agent.name, given.tools, given.sources, given.missing)

    def sign(self, step: ModelStep, steps: Sequence[Step], first: str) -> ModelStep:
        """Add the functions' results to a step, unless they are already journaled.

        Args:
            step: The next step.
            steps: The steps before it.
            first: Name of the agent that the turn began with.
        """
        prompt = None if isinstance(self.agent.system_prompt, str) else self._prompt
        policy = self.request.policy
        if prompt is None and self._given is None and policy is None:
            return step
        if journaled(steps, first, self.agent.name) != _NOTHING:
            return step
        offered = None if self._given is None else self._given.names
        return replace(step, prompt=prompt, offered=offered, policy=policy)

    @property
    def _caller(self) -> FunctionCaller:
        seen = self.context
        return FunctionCaller(
            agent=self.agent.name,
            context=TurnContext(
                conversation_id=seen.conversation_id,
                turn_id=seen.turn_id,
                agent=seen.agent,
                user_id=seen.user_id,
                tenant_id=seen.tenant_id,
                metadata=seen.metadata,
                attempt=seen.attempt,
                time=seen.time,
                context=seen.context,
            ),
            timeout=self.rules.prompt_timeout,
        )

    def _checked(self, prompt: object) -> str:
        if not isinstance(prompt, str):
            raise PromptFailed(
                f"agent {self.agent.name!r}: its system_prompt function returned a "
                f"{type(prompt).__name__}, expected text"
            )
        text = clean_text(prompt)
        size, limit = len(text.encode()), self.rules.max_message_bytes
        if size > limit:
            raise PromptFailed(
                f"agent {self.agent.name!r}: its system_prompt function returned {size} bytes: "
                f"expected at most {limit} (AGENTAPI_MAX_MESSAGE_BYTES)"
            )
        return text

    def _accepted(self, returned: object) -> _Given:
        """Check the tools that a function returned, and keep those in the journal."""
        if isinstance(returned, str) or not isinstance(returned, Sequence):
            raise ToolsFailed(
                f"agent {self.agent.name!r}: its tools function returned a "
                f"{type(returned).__name__}, expected a list of tools"
            )
        try:
            tools, sources = split_tools(self.agent.name, returned)
            Toolbox(self.agent.name, tools)
            check_tool_contexts(self.agent.name, tools, self.agent.context)
        except InvalidAgent as error:
            raise ToolsFailed(f"its tools function returned invalid tools: {error}") from error
        if self.begun.offered is None:
            return _Given(tools=tools, sources=sources)
        # These are the tools that the model was offered. Tools that the function adds now would be
        # new to it.
        before = set(self.begun.offered)
        given = _Given(
            tools=tuple(tool for tool in tools if tool.name in before),
            sources=tuple(source for source in sources if _source_name(source) in before),
        )
        missing = tuple(name for name in self.begun.offered if name not in set(given.names))
        return replace(given, missing=missing)


def _source_name(source: ToolSource) -> str:
    # No tool can have such a name.
    return f"{source.name}/*"


def seen_by(agent: AgentDefinition, context: ToolContext[Any]) -> ToolContext[Any]:
    """The context of the turn as an agent's functions see it.

    Args:
        agent: The agent.
        context: The turn, with the context as it is stored.

    Raises:
        InvalidContext: The stored context does not match the agent's type.
    """
    if context.agent == agent.name and context.context is None and agent.context is None:
        return context
    return replace(context, agent=agent.name, context=context_for(context.context, agent.context))
