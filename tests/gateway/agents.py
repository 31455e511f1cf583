"""Agents that let requests decide more or less, for tests of the gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
from pydantic import BaseModel

from agentapi import Agent, RequestPolicy, register_provider
from agentapi.providers import ModelRequest, ModelResponse
from agentapi.providers.offline import OfflineProvider
from tests.acceptance.agents import count_up, echo, hold


class MirrorProvider(OfflineProvider):
    """Replies with what the model was asked, but for the messages."""

    name = "mirror"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        response = await super().complete(request)
        if response.message.tool_calls:
            return response
        seen: dict[str, Any] = {
            "prompt": request.system_prompt,
            "sampling": request.sampling.given(),
            "output": None if request.output is None else request.output.name,
        }
        text = orjson.dumps(seen).decode()
        return replace(response, message=replace(response.message, content=text))


register_provider("mirror", MirrorProvider, sampling=["temperature", "stop", "max_output_tokens"])


class Weather(BaseModel):
    """A type of replies."""

    city: str
    degrees: int


open_agent = Agent(
    name="open", provider="mirror", system_prompt="You sell shoes.", tools=[echo, count_up, hold]
)
replaced = Agent(
    name="replaced",
    provider="mirror",
    system_prompt="You sell shoes.",
    accepts=RequestPolicy(instructions="replace"),
)
deaf = Agent(
    name="deaf",
    provider="mirror",
    system_prompt="You sell shoes.",
    accepts=RequestPolicy(instructions="ignore", sampling="ignore", reasoning="ignore"),
)
closed = Agent(
    name="closed",
    provider="mirror",
    accepts=RequestPolicy(
        instructions="refuse",
        sampling="refuse",
        reasoning="refuse",
        output="refuse",
        store="refuse",
    ),
)
strict = Agent(name="strict", provider="offline", output_retries=0)
weather = Agent(name="weather", provider="offline", output_type=Weather, output_retries=0)
