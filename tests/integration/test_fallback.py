"""The real SDKs against local servers: one provider fails, the other goes on with the turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from agentapi import Agent, AssistantMessage, EventType, Turn, TurnStatus, tool
from agentapi.providers import providers
from agentapi.providers.gemini.client import GeminiProvider
from agentapi.providers.openai.client import OpenAIProvider
from tests.fakes import chat, gemini
from tests.fakes.server import Behaviour, WireServer, hang_up, serving, sse
from tests.integration.fleet import Fleet

SIGNATURE = "c2lnbmF0dXJl"


@tool(idempotent=True)
def look(thing: str) -> str:
    """Look at a thing."""
    return f"{thing} is blue"


AGENT = Agent(
    name="both",
    provider=["openai:gpt-a", "gemini:flash"],
    tools=[look],
    options={
        "temperature": 0,
        "openai": {"max_completion_tokens": 300},
        "gemini": {"maxOutputTokens": 300},
    },
)


@dataclass
class Both:
    """Two servers, and a worker whose agent asks the one and then the other."""

    openai: WireServer
    gemini: WireServer
    fleet: Fleet

    async def say(self, message: str, **more: Any) -> Turn:
        """A turn, carried out once."""
        turn = self.fleet.enqueue("both", message, conversation_id="c", **more)
        await asyncio.to_thread(self.fleet.execute, turn)
        return self.fleet.turn(turn)


@pytest.fixture
async def both(make_fleet: Callable[..., Fleet]) -> AsyncIterator[Both]:
    async with serving() as one, serving() as two:
        with ExitStack() as replaced:
            replaced.enter_context(
                providers.replaced(
                    "openai", lambda: OpenAIProvider(api_key="k", base_url=f"{one.url}/v1")
                )
            )
            replaced.enter_context(
                providers.replaced("gemini", lambda: GeminiProvider(api_key="k", base_url=two.url))
            )
            fleet = make_fleet(agents=[AGENT], park_after=0.5)
            yield Both(one, two, fleet)
            await asyncio.to_thread(fleet.app.runtime.stop)


def look_at(identifier: str, thing: str) -> Behaviour:
    return chat.reply(None, chat.call(identifier, "look", f'{{"thing": "{thing}"}}'))


def gemini_looks_at(thing: str) -> Behaviour:
    return gemini.reply(gemini.call("look", {"thing": thing}, thoughtSignature=SIGNATURE))


FAILURES = {
    "500": chat.error(500, "boom"),
    "hang up": hang_up(),
    "no permission": chat.error(403, "not you"),
    "unknown model": chat.error(404, "no such model"),
    "too long": chat.error(400, "maximum context length is 8", kind="context_length_exceeded"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_the_other_goes_on_in_the_middle_of_a_turn_and_the_first_in_the_next(
    both: Both, failure: str
) -> None:
    both.openai.will(look_at("call_1", "sky"), FAILURES[failure], FAILURES[failure])
    both.gemini.will(gemini_looks_at("sea"), gemini.reply({"text": "All is blue."}))
    turn = await both.say("What is blue?")
    assert (turn.status, turn.text) == (TurnStatus.COMPLETED, "All is blue.")
    assert [m.model for m in turn.messages if isinstance(m, AssistantMessage)] == [
        "openai:gpt-a",
        "gemini:flash",
        "gemini:flash",
    ]

    # Gemini sees openai's call, which no Gemini model signed, and its result.
    user, call, result = both.gemini.requests[0]["contents"]
    assert user["parts"] == [{"text": "What is blue?"}]
    assert call["parts"][0]["functionCall"] == {
        "id": "call_1",
        "name": "look",
        "args": {"thing": "sky"},
    }
    assert call["parts"][0]["thoughtSignature"] == "skip_thought_signature_validator"
    assert result["parts"][0]["functionResponse"]["response"] == {"output": "sky is blue"}

    # The next turn is openai's again; nothing that is only Gemini's is sent there.
    both.openai.will(chat.reply("As I said."))
    again = await both.say("Sure?")
    assert again.text == "As I said."
    sent = both.openai.requests[-1]["messages"]
    roles = ["user", "assistant", "tool", "assistant", "tool", "assistant", "user"]
    assert [message["role"] for message in sent] == roles
    assert sent[3]["tool_calls"][0]["id"] == sent[4]["tool_call_id"]
    assert SIGNATURE not in str(both.openai.requests)
    assert {request["model"] for request in both.openai.requests} == {"gpt-a"}
    assert all("/models/flash:" in path for path in both.gemini.paths)


async def test_each_gets_options_in_its_own_words(both: Both) -> None:
    both.openai.will(chat.error(500, "boom"))
    both.gemini.will(gemini.reply({"text": "All is blue."}))
    assert (await both.say("What is blue?")).text == "All is blue."
    [asked], [sent] = both.openai.requests, both.gemini.requests
    assert (asked["temperature"], asked["max_completion_tokens"]) == (0, 300)
    assert sent["generationConfig"] == {"temperature": 0, "maxOutputTokens": 300}
    assert {"openai", "gemini"}.isdisjoint(asked.keys() | sent.keys())


async def test_a_first_that_was_busy_is_asked_again_when_the_second_refuses(both: Both) -> None:
    both.openai.will(chat.error(503, "busy", retry_after="0"), chat.reply("All is blue."))
    both.gemini.will(gemini.error(400, "Unknown name", "INVALID_ARGUMENT"))
    turn = await both.say("What is blue?")
    assert (turn.status, turn.text) == (TurnStatus.COMPLETED, "All is blue.")
    assert (len(both.openai.requests), len(both.gemini.requests)) == (2, 1)


async def test_a_stream_that_breaks_off_is_withdrawn(both: Both) -> None:
    both.openai.will(sse(chat.chunk({"content": "Half an ans"}), cut=True))
    both.gemini.will(gemini.streamed(gemini.body({"text": "All is blue."})))
    turn = await both.say("What is blue?", stream=True)
    assert turn.text == "All is blue."
    events = list(both.fleet.producer.turn(turn.turn_id).events())
    shown = [e.data.get("text") for e in events if e.type in (EventType.DELTA, EventType.RESET)]
    assert shown == ["Half an ans", None, "All is blue."]


async def test_the_turn_parks_when_both_are_away_and_keeps_count(both: Both) -> None:
    both.openai.will(chat.error(429, "slow down", retry_after="120"))
    both.gemini.will(gemini.error(429, "slow down", "RESOURCE_EXHAUSTED", retry_after="60"))
    turn = await both.say("What is blue?")
    assert (turn.status, turn.failures) == (TurnStatus.PARKED, 1)
    parked = both.fleet.app.store.events({turn.turn_id: -1}, timeout=0)[turn.turn_id][-1]
    assert parked.data["reason"] == "provider"
    assert 60 <= parked.data["seconds"] <= 75
