"""Pydantic AI, as its documentation uses it."""

from __future__ import annotations

from typing import Any

from kit import BASE, KEY, case, contains, main
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, RunContext, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


def chat(name: str = "plain") -> OpenAIChatModel:
    return OpenAIChatModel(name, provider=OpenAIProvider(base_url=BASE, api_key=KEY))


def responses(name: str = "plain") -> OpenAIResponsesModel:
    return OpenAIResponsesModel(name, provider=OpenAIProvider(base_url=BASE, api_key=KEY))


class Person(BaseModel):
    name: str
    age: int


ASKED = "He is called Jason and is 25."


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"It is sunny in {city}"


@case("quickstart")
async def hello_world() -> None:
    agent = Agent(chat(), instructions="Be concise, reply with one sentence.")
    result = await agent.run('Where does "hello world" come from?')
    contains(result.output, "Be concise", "hello world")


@case("quickstart")
def run_sync() -> None:
    contains(Agent(chat()).run_sync("hello").output, "ack: hello")


@case("quickstart")
async def hello_world_by_responses() -> None:
    agent = Agent(responses(), instructions="Be concise, reply with one sentence.")
    contains((await agent.run("Where is it?")).output, "Be concise", "Where is it?")


@case("instructions")
async def system_prompt() -> None:
    agent = Agent(chat(), system_prompt="Use the customer's name.", deps_type=str)

    @agent.system_prompt
    def add_the_name(context: RunContext[str]) -> str:
        return f"The customer's name is {context.deps}."

    result = await agent.run("hi", deps="Frank")
    contains(result.output, "Use the customer's name.", "Frank")


@case("streaming")
async def stream() -> None:
    async with Agent(chat(), instructions="Be brief.").run_stream("hello there") as result:
        text = [part async for part in result.stream_text()][-1]
    contains(text, "ack: hello there")


@case("streaming")
async def stream_by_responses() -> None:
    async with Agent(responses(), instructions="Be brief.").run_stream("hello there") as result:
        text = [part async for part in result.stream_text()][-1]
    contains(text, "ack: hello there")


@case("multi-turn")
async def message_history() -> None:
    agent = Agent(chat(), instructions="Be a helpful assistant.")
    first = await agent.run("Tell me a joke.")
    second = await agent.run("Explain?", message_history=first.new_messages())
    contains(second.output, "users=2", "Explain?")


@case("multi-turn")
async def message_history_by_responses() -> None:
    agent = Agent(responses(), instructions="Be a helpful assistant.")
    first = await agent.run("Tell me a joke.")
    second = await agent.run("Explain?", message_history=first.new_messages())
    contains(second.output, "users=2", "Explain?")


@case("tools")
async def tools() -> None:
    agent = Agent(chat(), instructions="Be brief.", tools=[weather])
    contains((await agent.run("What is the weather in Paris?")).output, "sunny in Paris")


@case("tools")
async def tools_by_responses() -> None:
    agent = Agent(responses(), instructions="Be brief.", tools=[weather])
    contains((await agent.run("What is the weather in Paris?")).output, "sunny in Paris")


@case("tools")
async def tools_then_history() -> None:
    agent = Agent(responses(), tools=[weather])
    first = await agent.run("What is the weather in Paris?")
    second = await agent.run("thank you", message_history=first.all_messages())
    contains(second.output, "users=2")


async def _typed(model: Any, output: Any) -> None:
    result = await Agent(model, output_type=output).run(ASKED)
    assert result.output == Person(name="Jason", age=25), result.output


@case("structured output")
async def output_type() -> None:
    await _typed(chat(), Person)


@case("structured output")
async def output_type_by_responses() -> None:
    await _typed(responses(), Person)


@case("structured output")
async def tool_output() -> None:
    await _typed(chat(), ToolOutput(Person))


@case("structured output")
async def native_output() -> None:
    await _typed(chat(), NativeOutput(Person))


@case("structured output")
async def native_output_by_responses() -> None:
    await _typed(responses(), NativeOutput(Person))


@case("structured output")
async def prompted_output() -> None:
    await _typed(chat(), PromptedOutput(Person))


@case("parameters")
async def model_settings() -> None:
    result = await Agent(chat()).run("hi", model_settings={"temperature": 0.3, "max_tokens": 99})
    contains(result.output, "temperature=0.3")


@case("tools")
async def the_agents_own_tool() -> None:
    contains((await Agent(chat("tools")).run("order status of 7?")).output, "order 7 is on its")


if __name__ == "__main__":
    main()
