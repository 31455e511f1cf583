"""Gather and chain: turns without a model that delegate to others and combine their replies.

Each is an agent loop with a few lines of code in place of a model. So a flow is an ordinary turn:
journaled, cancelled with its children, and waiting without a worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

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
from agentapi.providers.base import (
    FinishReason,
    ModelRequest,
    ModelResponse,
    Provider,
    StreamPart,
)
from agentapi.tools import BaseTool, Delegate, delegate, tool
from agentapi.turns.asks import LONGEST_CHAIN, REPLY
from agentapi.turns.kinds import CHAIN, GATHER


class ChainBroken(AgentAPIError):
    """A link of a chain gave no reply."""

    code = "chain_broken"


@tool(idempotent=True)
def ask_all(asks: list[dict[str, Any]]) -> list[Delegate]:
    """Ask all of them."""
    return [delegate(ask["agent"], ask["message"], timeout=ask["timeout"]) for ask in asks]


@tool(idempotent=True)
def ask_one(ask: dict[str, Any]) -> Delegate:
    """Ask one."""
    return delegate(ask["agent"], ask["message"], timeout=ask["timeout"])


NextStep: TypeAlias = Callable[[Sequence[Mapping[str, Any]], Sequence[ToolMessage]], ModelResponse]
"""Decides, from the asks and the results so far, which turns come next or what the reply is."""


class FlowModel:
    """Answers in place of a model: with the next delegation, or with the combined replies."""

    name = "agentapi.flow"
    default_model = "none"

    def __init__(self, next_step: NextStep) -> None:
        self._next_step = next_step

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`.

        Raises:
            ChainBroken: The last link of a chain gave no reply.
        """
        start = max(i for i, m in enumerate(request.messages) if isinstance(m, UserMessage))
        asks = orjson.loads(request.messages[start].content)["asks"]
        results = [m for m in request.messages[start:] if isinstance(m, ToolMessage)]
        return self._next_step(asks, results)

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """See `Provider.stream`."""
        yield await self.complete(request)

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """One kind of flow.

    Attributes:
        agent: Its tools and limits.
        model: What answers in place of a model.
    """

    agent: AgentDefinition
    model: Provider


def gather_flow() -> Flow:
    """Ask several agents in parallel."""
    return Flow(agent=_agent(GATHER, ask_all, max_steps=2), model=FlowModel(_gather))


def chain_flow() -> Flow:
    """Ask several agents one after the other."""
    return Flow(agent=_agent(CHAIN, ask_one, max_steps=LONGEST_CHAIN + 1), model=FlowModel(_chain))


def _agent(name: str, ask: BaseTool, *, max_steps: int) -> AgentDefinition:
    # Its provider is never asked.
    agent: Agent = Agent(
        name=name,
        provider="offline",
        tools=[ask],
        window=Window(messages=0),
        max_steps=max_steps,
    )
    return agent.definition


def _gather(asks: Sequence[Mapping[str, Any]], results: Sequence[ToolMessage]) -> ModelResponse:
    if not results:
        return _call(ask_all.name, {"asks": asks}, 0)
    return _reply(results[-1])


def _chain(asks: Sequence[Mapping[str, Any]], results: Sequence[ToolMessage]) -> ModelResponse:
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
