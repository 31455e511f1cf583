"""AutoGen's OpenAIChatCompletionClient and AssistantAgent, as its documentation uses them."""

from __future__ import annotations

from typing import Any

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import SystemMessage, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from kit import BASE, KEY, case, contains, main
from pydantic import BaseModel


def client(name: str = "plain") -> OpenAIChatCompletionClient:
    info: Any = {
        "vision": False,
        "function_calling": True,
        "json_output": True,
        "structured_output": True,
        "family": "unknown",
    }
    return OpenAIChatCompletionClient(model=name, base_url=BASE, api_key=KEY, model_info=info)


class Person(BaseModel):
    name: str
    age: int


async def get_weather(city: str) -> str:
    """Get the weather for a given city."""
    return f"The weather in {city} is 73 degrees."


@case("quickstart")
async def create() -> None:
    said = [UserMessage(content="What is the capital of France?", source="user")]
    contains((await client().create(said)).content, "ack: What is the capital of France?")


@case("instructions")
async def create_with_system() -> None:
    said = [SystemMessage(content="Be brief."), UserMessage(content="hello", source="user")]
    contains((await client().create(said)).content, "Be brief.")


@case("streaming")
async def create_stream() -> None:
    said = [UserMessage(content="hello there", source="user")]
    parts = [part async for part in client().create_stream(said)]
    contains("".join(part for part in parts if isinstance(part, str)), "ack: hello there")


@case("quickstart")
async def hello_world() -> None:
    agent = AssistantAgent("assistant", model_client=client())
    result = await agent.run(task="Say 'Hello World!'")
    contains(result.messages[-1].to_text(), "ack: Say 'Hello World!'")


@case("tools")
async def quickstart_with_tools() -> None:
    agent = AssistantAgent(
        name="weather_agent",
        model_client=client(),
        tools=[get_weather],
        system_message="You are a helpful assistant.",
        reflect_on_tool_use=True,
    )
    result = await agent.run(task="What is the weather in Paris?")
    contains(result.messages[-1].to_text(), "Paris is 73 degrees")


@case("multi-turn")
async def second_run() -> None:
    agent = AssistantAgent("assistant", model_client=client())
    await agent.run(task="one")
    result = await agent.run(task="two")
    contains(result.messages[-1].to_text(), "users=2")


@case("multi-turn")
async def team() -> None:
    agents = [AssistantAgent(name, model_client=client()) for name in ("primary", "critic")]
    made = RoundRobinGroupChat(agents, termination_condition=MaxMessageTermination(3))
    result = await made.run(task="Write a short poem.")
    contains(result.messages[-1].to_text(), "ack:")


@case("structured output")
async def structured() -> None:
    agent = AssistantAgent("assistant", model_client=client(), output_content_type=Person)
    result = await agent.run(task="He is called Jason and is 25.")
    assert result.messages[-1].content == Person(name="Jason", age=25)


if __name__ == "__main__":
    main()
