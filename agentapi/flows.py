"""Gather and chain: turns without a model that delegate to others and put their replies together.

Each is an agent whose "model" is a few lines of arithmetic over its own history. So a flow is
a turn like any other: journaled, cancelled with its children, and waiting without a worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from agentapi.agent import Agent
from agentapi.agents.definition import AgentDefinition
from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from agentapi.conversation.window import Window
from agentapi.errors import AgentAPIError
from agentapi.providers import register_provider
from agentapi.providers.base import FinishReason, ModelRequest, ModelResponse, StreamPart
from agentapi.tools import Delegate, delegate, tool

GATHER: Final = "agentapi.gather"
CHAIN: Final = "agentapi.chain"

REPLY: Final = "{reply}"
"""Stands for the reply of the link before, in a link's message."""

LONGEST_CHAIN: Final = 100


class ChainBroken(AgentAPIError):
    """A link of a chain gave no reply."""

    code = "chain_broken"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One turn of a gather or a chain.

    Attributes:
        agent: Name of the agent.
        message: What to tell it; in a chain ``{reply}`` stands for the reply before.
        timeout: Seconds it may take; None for as long as the whole.
    """

    agent: str
    message: str = REPLY
    timeout: float | None = None


def flow_message(asks: Sequence[Ask]) -> str:
    """What a flow's turn is told."""
    return orjson.dumps({"v": 1, "asks": [asdict(ask) for ask in asks]}).decode()


@tool(idempotent=True)
def ask_all(asks: list[dict[str, Any]]) -> list[Delegate]:
    """Ask all of them."""
    return [delegate(ask["agent"], ask["message"], timeout=ask["timeout"]) for ask in asks]


@tool(idempotent=True)
def ask_one(ask: dict[str, Any]) -> Delegate:
    """Ask one."""
    return delegate(ask["agent"], ask["message"], timeout=ask["timeout"])


class FlowProvider:
    """Answers for flows: which turn comes next, or what all of them gave."""

    name = "agentapi.flow"
    default_model = "none"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`.

        Raises:
            ChainBroken: The last link gave no reply.
        """
        start = max(i for i, m in enumerate(request.messages) if isinstance(m, UserMessage))
        asks = orjson.loads(request.messages[start].content)["asks"]
        results = [m for m in request.messages[start:] if isinstance(m, ToolMessage)]
        chained = request.tools[0].name == ask_one.name
        return _chain(asks, results) if chained else _gather(asks, results)

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """See `Provider.stream`."""
        yield await self.complete(request)

    async def aclose(self) -> None:
        """Nothing to close."""


def _gather(asks: list[dict[str, Any]], results: Sequence[ToolMessage]) -> ModelResponse:
    if not results:
        return _call(ask_all.name, {"asks": asks}, 0)
    return _reply(results[-1])


def _chain(asks: list[dict[str, Any]], results: Sequence[ToolMessage]) -> ModelResponse:
    done = len(results)
    if results and results[-1].is_error:
        agent = asks[done - 1]["agent"]
        raise ChainBroken(f"link {done} of {len(asks)}, agent {agent!r}: {results[-1].content}")
    if done == len(asks):
        return _reply(results[-1])
    ask = dict(asks[done])
    if results:
        ask["message"] = ask["message"].replace(REPLY, results[-1].content)
    return _call(ask_one.name, {"ask": ask}, done)


def _call(name: str, arguments: dict[str, Any], number: int) -> ModelResponse:
    call = ToolCall(id=f"ask-{number}", name=name, arguments=arguments)
    message = AssistantMessage(content="", tool_calls=(call,))
    return ModelResponse(message=message, usage=Usage(), finish=FinishReason.TOOL_CALLS)


def _reply(result: Message) -> ModelResponse:
    message = AssistantMessage(content=result.content)
    return ModelResponse(message=message, usage=Usage(), finish=FinishReason.STOP)


def flow_agents() -> list[AgentDefinition]:
    """The agents that every worker knows besides its own."""
    register_provider(FlowProvider.name, FlowProvider)
    nothing = Window(messages=0)
    gather = Agent(name=GATHER, provider=FlowProvider.name, tools=[ask_all], window=nothing)
    chain: Agent = Agent(
        name=CHAIN,
        provider=FlowProvider.name,
        tools=[ask_one],
        window=nothing,
        max_steps=LONGEST_CHAIN + 1,
    )
    return [gather.definition, chain.definition]


def is_flow(name: str) -> bool:
    """Whether an agent is one of these."""
    return name in (GATHER, CHAIN)
