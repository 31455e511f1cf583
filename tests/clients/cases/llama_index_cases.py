"""LlamaIndex's OpenAILike and OpenAIResponses, as their documentation uses them."""

from __future__ import annotations

from typing import Any

from kit import BASE, KEY, case, contains, main
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


def like(name: str = "plain", **options: Any) -> OpenAILike:
    return OpenAILike(model=name, api_base=BASE, api_key=KEY, is_chat_model=True, **options)


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"It is sunny in {city}"


def responses(**options: Any) -> OpenAIResponses:
    # It knows the windows of OpenAI's own models only.
    made: dict[str, Any] = {"model": "plain", "context_window": 8000, **options}
    return OpenAIResponses(api_base=BASE, api_key=KEY, **made)


@case("quickstart")
def complete() -> None:
    contains(like().complete("Hello World!"), "ack: Hello World!")


@case("quickstart")
def complete_without_chat() -> None:
    made = OpenAILike(model="plain", api_base=BASE, api_key=KEY)
    contains(made.complete("Hello World!"), "ack: Hello World!")


@case("instructions")
def chat() -> None:
    messages = [
        ChatMessage(role="system", content="You are a pirate."),
        ChatMessage(role="user", content="What is your name"),
    ]
    contains(like().chat(messages), "You are a pirate.", "What is your name")


@case("streaming")
def stream_chat() -> None:
    parts = like().stream_chat([ChatMessage(role="user", content="hello there")])
    contains("".join(part.delta or "" for part in parts), "ack: hello there")


@case("parameters")
def context_and_limit() -> None:
    made = like(context_window=8000, max_tokens=200, temperature=0.1)
    contains(made.complete("hi"), "temperature=0.1")


@case("multi-turn")
def multi_turn() -> None:
    messages = [ChatMessage(role="user", content="hi")]
    messages += [like().chat(messages).message, ChatMessage(role="user", content="more")]
    contains(like().chat(messages), "users=2")


@case("tools")
async def function_agent() -> None:
    agent = FunctionAgent(
        tools=[FunctionTool.from_defaults(weather)],
        llm=like(is_function_calling_model=True),
        system_prompt="You are helpful.",
    )
    contains(await agent.run("What is the weather in Paris?"), "sunny in Paris")


@case("structured output")
def structured_predict() -> None:
    made = like(is_function_calling_model=True).as_structured_llm(Person)
    answer = made.chat([ChatMessage(role="user", content="He is called Jason and is 25.")])
    assert answer.raw == Person(name="Jason", age=25), answer.raw


@case("quickstart")
def responses_complete() -> None:
    contains(responses().complete("Paul Graham is "), "ack: Paul Graham is")


@case("instructions")
def responses_chat() -> None:
    messages = [
        ChatMessage(role="system", content="You are a pirate."),
        ChatMessage(role="user", content="What is your name"),
    ]
    contains(responses().chat(messages), "You are a pirate.")


@case("streaming")
def responses_stream() -> None:
    parts = responses().stream_complete("hello there")
    contains("".join(part.delta or "" for part in parts), "ack: hello there")


if __name__ == "__main__":
    main()
