"""Microsoft Agent Framework, as its documentation uses it."""

from __future__ import annotations

from typing import Any

from agent_framework import Agent
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient
from kit import BASE, KEY, case, contains, main
from pydantic import BaseModel


def responses(name: str = "plain") -> Any:
    return OpenAIChatClient(model=name, api_key=KEY, base_url=BASE)


def chat(name: str = "plain") -> Any:
    return OpenAIChatCompletionClient(model=name, api_key=KEY, base_url=BASE)


def get_weather(location: str) -> str:
    """Get the weather for a given location."""
    return f"The weather in {location} is cloudy."


class Person(BaseModel):
    name: str
    age: int


@case("quickstart")
async def hello() -> None:
    agent = Agent(client=responses(), name="Hello", instructions="You are friendly.")
    contains(await agent.run("What is the capital of France?"), "You are friendly.", "capital")


@case("quickstart")
async def hello_by_chat() -> None:
    agent = Agent(client=chat(), name="Hello", instructions="You are friendly.")
    contains(await agent.run("What is the capital of France?"), "You are friendly.", "capital")


@case("streaming")
async def streaming() -> None:
    agent = Agent(client=responses(), instructions="You are friendly.")
    text = ""
    async for part in agent.run("hello there", stream=True):
        text += part.text or ""
    contains(text, "ack: hello there")


@case("streaming")
async def streaming_by_chat() -> None:
    agent = Agent(client=chat(), instructions="You are friendly.")
    text = ""
    async for part in agent.run("hello there", stream=True):
        text += part.text or ""
    contains(text, "ack: hello there")


@case("tools")
async def tools() -> None:
    agent = Agent(client=responses(), instructions="You are helpful.", tools=[get_weather])
    contains(await agent.run("What is the weather in Seattle?"), "Seattle is cloudy")


@case("tools")
async def tools_by_chat() -> None:
    agent = Agent(client=chat(), instructions="You are helpful.", tools=[get_weather])
    contains(await agent.run("What is the weather in Seattle?"), "Seattle is cloudy")


@case("multi-turn")
async def session() -> None:
    agent = Agent(client=responses(), instructions="You are friendly.")
    made = agent.create_session()
    await agent.run("one", session=made)
    contains(await agent.run("two", session=made), "users=2")


@case("multi-turn")
async def session_by_chat() -> None:
    agent = Agent(client=chat(), instructions="You are friendly.")
    made = agent.create_session()
    await agent.run("one", session=made)
    contains(await agent.run("two", session=made), "users=2")


@case("structured output")
async def structured() -> None:
    agent = Agent(client=responses(), instructions="Extract the person.")
    answer = await agent.run("He is called Jason and is 25.", options={"response_format": Person})
    assert answer.value == Person(name="Jason", age=25), answer


if __name__ == "__main__":
    main()
