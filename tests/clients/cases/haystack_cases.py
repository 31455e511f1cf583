"""Haystack's OpenAIChatGenerator and Agent, as their documentation uses them."""

from __future__ import annotations

import os
from typing import Any

from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import tool
from haystack.utils import Secret
from kit import BASE, KEY, case, contains, main
from pydantic import BaseModel

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"


def generator(name: str = "plain", **options: Any) -> OpenAIChatGenerator:
    return OpenAIChatGenerator(
        api_key=Secret.from_token(KEY), model=name, api_base_url=BASE, **options
    )


@tool
def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"It is sunny in {city}"


class Person(BaseModel):
    name: str
    age: int


@case("quickstart")
def run() -> None:
    answer = generator().run([ChatMessage.from_user("What's NLP?")])
    contains(answer["replies"][0].text, "ack: What's NLP?")


@case("instructions")
def with_system() -> None:
    messages = [ChatMessage.from_system("Be brief."), ChatMessage.from_user("What's NLP?")]
    contains(generator().run(messages)["replies"][0].text, "Be brief.")


@case("streaming")
def streaming() -> None:
    parts: list[str] = []
    made = generator(streaming_callback=lambda chunk: parts.append(chunk.content or ""))
    made.run([ChatMessage.from_user("hello there")])
    contains("".join(parts), "ack: hello there")


@case("parameters")
def generation_kwargs() -> None:
    made = generator(generation_kwargs={"temperature": 0.4, "max_completion_tokens": 99})
    contains(made.run([ChatMessage.from_user("hi")])["replies"][0].text, "temperature=0.4")


@case("multi-turn")
def multi_turn() -> None:
    messages = [ChatMessage.from_user("hi")]
    messages += generator().run(messages)["replies"]
    messages.append(ChatMessage.from_user("more"))
    contains(generator().run(messages)["replies"][0].text, "users=2")


@case("tools")
def agent() -> None:
    made = Agent(chat_generator=generator(), tools=[weather], system_prompt="Be helpful.")
    answer = made.run(messages=[ChatMessage.from_user("What is the weather in Paris?")])
    contains(answer["messages"][-1].text, "sunny in Paris")


@case("structured output")
def structured() -> None:
    made = generator(generation_kwargs={"response_format": Person})
    answer = made.run([ChatMessage.from_user("He is called Jason and is 25.")])
    assert Person.model_validate_json(answer["replies"][0].text).name == "Jason"


if __name__ == "__main__":
    main()
