"""Agents whose model and tools write each execution into a ledger, as it begins.

The ledger is one file; a line is one write to a descriptor opened for appending, so that lines
of several processes do not mix, and a killed process leaves whole lines.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from agentapi import Agent, ToolContext, UserMessage, register_provider, tool
from agentapi.providers import ModelRequest, ModelResponse
from agentapi.providers.offline import OfflineProvider

_LEDGER = os.open(os.environ["CHAOS_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note(**fields: Any) -> None:
    os.write(_LEDGER, json.dumps({**fields, "pid": os.getpid()}).encode() + b"\n")


class LedgerProvider(OfflineProvider):
    """Answers like the offline provider, and notes which step of which turn it was asked for."""

    name = "ledger"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        turn = [*request.messages]
        while not isinstance(turn[0], UserMessage) or any(
            isinstance(message, UserMessage) for message in turn[1:]
        ):
            turn.pop(0)
        note(kind="model", turn=turn[0].turn_id, step=len(turn) - 1)
        await asyncio.sleep(0.02)
        return await super().complete(request)


register_provider("ledger", LedgerProvider)


@tool(idempotent=True)
async def work(seconds: float, context: ToolContext) -> str:
    """Take a while; may be repeated."""
    note(kind="work", turn=context.turn_id, step=1, attempt=context.attempt)
    await asyncio.sleep(seconds)
    return "worked"


@tool
async def charge(seconds: float, context: ToolContext) -> str:
    """Take a while; must not be repeated."""
    note(kind="charge", turn=context.turn_id, step=1, attempt=context.attempt)
    await asyncio.sleep(seconds)
    return "charged"


chaos = Agent(name="chaos", provider="ledger", tools=[work, charge])
