"""Agents whose prompts and tools depend on the turn."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from agentapi import Agent, Delegate, ToolContext, TurnContext, delegate, register_provider, tool
from agentapi.conversation.messages import ToolMessage
from agentapi.providers.base import ModelRequest, ModelResponse
from agentapi.providers.offline import OfflineProvider
from agentapi.testing import says
from agentapi.tools import BaseTool


class Shopper(BaseModel):
    """The context."""

    name: str
    plan: str = "free"


class Prompting(OfflineProvider):
    """Calls tools as the message says, then replies with its prompt and the tools' names."""

    name = "prompting"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        answer = await super().complete(request)
        if answer.message.tool_calls:
            return answer
        results = [m.content for m in request.messages if isinstance(m, ToolMessage)]
        offered = ",".join(sorted(spec.name for spec in request.tools))
        return says(f"{request.system_prompt}; {offered}; {','.join(results)}")


register_provider("prompting", Prompting)


@tool(idempotent=True)
async def hold(file: str, context: ToolContext[Shopper]) -> str:
    """Wait until a file exists, and say for whom. See `tests.gate`."""
    while not os.access(file, os.F_OK):  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.05)
    return f"held for {context.context.name}"


@tool(requires_approval=True)
def sign(context: ToolContext[Shopper]) -> str:
    """Sign."""
    return f"signed for {context.context.name}"


@tool
def ask(message: str) -> Delegate:
    """Ask the agent `sales`."""
    return delegate("sales", message)


@tool
def gold_only() -> str:
    """Something for some."""
    return "gold"


def prompt(turn: TurnContext[Shopper]) -> str:
    """Never the same twice: it names the process that made it."""
    return f"{turn.context.name} {turn.attempt} {os.getpid()} {uuid.uuid4().hex}"


async def tools(turn: TurnContext[Shopper]) -> Sequence[BaseTool]:
    """The tools of a plan; after a takeover one more."""
    more = [gold_only] if turn.context.plan == "gold" or turn.attempt > 1 else []
    return [hold, sign, ask, *more]


def stuck(turn: TurnContext) -> str:
    """Block the thread for longer than is allowed."""
    time.sleep(8)
    return "too late"


def broken(turn: TurnContext[Any]) -> str:
    """Quote the user in an error."""
    raise RuntimeError(f"words of {turn.context['name']}")


sales = Agent(
    name="sales",
    provider="prompting",
    system_prompt=prompt,
    tools=tools,
    context_type=Shopper,
)
slow_prompt = Agent(name="slow_prompt", provider="prompting", system_prompt=stuck)
broken_prompt = Agent(name="broken_prompt", provider="prompting", system_prompt=broken)
