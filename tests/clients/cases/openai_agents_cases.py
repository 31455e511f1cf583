"""OpenAI's Agents SDK, as its documentation uses it."""

from __future__ import annotations

from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    handoff,
    set_tracing_disabled,
)
from kit import BASE, KEY, case, contains, main
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)


def client() -> AsyncOpenAI:
    return AsyncOpenAI(base_url=BASE, api_key=KEY)


def responses(name: str = "plain") -> Any:
    return OpenAIResponsesModel(model=name, openai_client=client())


def chat(name: str = "plain") -> Any:
    return OpenAIChatCompletionsModel(model=name, openai_client=client())


@function_tool
def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"The weather in {city} is sunny."


class Person(BaseModel):
    name: str
    age: int


@case("quickstart")
async def hello_world() -> None:
    agent = Agent(name="Assistant", instructions="You only respond in haikus.", model=responses())
    result = await Runner.run(agent, "Tell me about recursion in programming.")
    contains(result.final_output, "haikus", "recursion")


@case("quickstart")
async def hello_world_by_chat() -> None:
    agent = Agent(name="Assistant", instructions="You only respond in haikus.", model=chat())
    result = await Runner.run(agent, "Tell me about recursion in programming.")
    contains(result.final_output, "haikus", "recursion")


@case("quickstart")
async def without_instructions() -> None:
    result = await Runner.run(Agent(name="Assistant", model=responses()), "hello")
    contains(result.final_output, "ack: hello")


@case("streaming")
async def streamed() -> None:
    agent = Agent(name="Joker", instructions="You are a helpful assistant.", model=responses())
    result = Runner.run_streamed(agent, input="Please tell me 5 jokes.")
    text = ""
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    contains(text, "5 jokes")


@case("streaming")
async def streamed_by_chat() -> None:
    agent = Agent(name="Joker", instructions="You are a helpful assistant.", model=chat())
    result = Runner.run_streamed(agent, input="Please tell me 5 jokes.")
    async for _ in result.stream_events():
        pass
    contains(result.final_output, "5 jokes")


@case("tools")
async def tools() -> None:
    agent = Agent(
        name="Hello", instructions="You are helpful.", model=responses(), tools=[get_weather]
    )
    result = await Runner.run(agent, input="What's the weather in Tokyo?")
    contains(result.final_output, "Tokyo is sunny")


@case("tools")
async def tools_by_chat() -> None:
    agent = Agent(name="Hello", instructions="You are helpful.", model=chat(), tools=[get_weather])
    result = await Runner.run(agent, input="What's the weather in Tokyo?")
    contains(result.final_output, "Tokyo is sunny")


@case("tools")
async def tools_streamed() -> None:
    agent = Agent(name="Hello", model=responses(), tools=[get_weather])
    result = Runner.run_streamed(agent, input="What's the weather in Tokyo?")
    kinds = [
        event.item.type
        async for event in result.stream_events()
        if event.type == "run_item_stream_event"
    ]
    assert "tool_call_item" in kinds, kinds
    contains(result.final_output, "Tokyo is sunny")


async def _hand_over(make: Any) -> None:
    spanish = Agent(name="Spanish agent", instructions="You only speak Spanish.", model=make())
    english = Agent(name="English agent", instructions="You only speak English", model=make())
    triage = Agent(
        name="Triage agent",
        instructions="Handoff to the appropriate agent by the language of the request.",
        handoffs=[handoff(spanish), handoff(english)],
        model=make(),
        model_settings=ModelSettings(parallel_tool_calls=False),
    )
    result = await Runner.run(triage, input="Hola, a spanish question")
    assert result.last_agent.name == "Spanish agent"
    contains(result.final_output, "You only speak Spanish.")


@case("tools")
async def handoffs() -> None:
    await _hand_over(responses)


@case("tools")
async def handoffs_by_chat() -> None:
    await _hand_over(chat)


@case("structured output")
async def output_type() -> None:
    agent = Agent(
        name="Extractor", instructions="Extract the person.", model=responses(), output_type=Person
    )
    result = await Runner.run(agent, "He is called Jason and is 25.")
    assert result.final_output == Person(name="Jason", age=25)


@case("structured output")
async def output_type_by_chat() -> None:
    agent = Agent(
        name="Extractor", instructions="Extract the person.", model=chat(), output_type=Person
    )
    result = await Runner.run(agent, "He is called Jason and is 25.")
    assert result.final_output == Person(name="Jason", age=25)


@case("multi-turn")
async def input_list() -> None:
    agent = Agent(name="Assistant", instructions="Reply concisely.", model=responses())
    first = await Runner.run(agent, "What city is the Golden Gate Bridge in?")
    more = [*first.to_input_list(), {"role": "user", "content": "What state is it in?"}]
    second = await Runner.run(agent, more)
    contains(second.final_output, "What state is it in?", "users=2")


@case("multi-turn")
async def input_list_of_an_agent_with_tools() -> None:
    agent = Agent(name="Assistant", model=responses("tools"))
    first = await Runner.run(agent, "order status of 7?")
    more = [*first.to_input_list(), {"role": "user", "content": "and now?"}]
    contains((await Runner.run(agent, more)).final_output, "users=2")


@case("multi-turn")
async def input_list_with_client_tools() -> None:
    agent = Agent(name="Assistant", model=responses(), tools=[get_weather])
    first = await Runner.run(agent, "What's the weather in Tokyo?")
    more = [*first.to_input_list(), {"role": "user", "content": "thank you"}]
    contains((await Runner.run(agent, more)).final_output, "users=2")


@case("multi-turn")
async def sqlite_session() -> None:
    session = SQLiteSession("conversation_123")
    agent = Agent(name="Assistant", instructions="Reply very concisely.", model=responses())
    await Runner.run(agent, "What city is the Golden Gate Bridge in?", session=session)
    result = await Runner.run(agent, "What state is it in?", session=session)
    contains(result.final_output, "users=2")


@case("multi-turn")
async def conversations_session() -> None:
    session = OpenAIConversationsSession(openai_client=client())
    agent = Agent(name="Assistant", instructions="Reply very concisely.", model=responses())
    await Runner.run(agent, "What city is the Golden Gate Bridge in?", session=session)
    result = await Runner.run(agent, "What state is it in?", session=session)
    contains(result.final_output, "users=2")


@case("multi-turn")
async def conversations_session_with_tools() -> None:
    session = OpenAIConversationsSession(openai_client=client())
    agent = Agent(name="Assistant", model=responses("tools"), tools=[get_weather])
    await Runner.run(agent, "order status of 7?", session=session)
    await Runner.run(agent, "What's the weather in Tokyo?", session=session)
    result = await Runner.run(agent, "thank you", session=session)
    contains(result.final_output, "users=3")


@case("multi-turn")
async def previous_response() -> None:
    agent = Agent(name="Assistant", instructions="Reply very concisely.", model=responses())
    first = await Runner.run(agent, "What city is it?")
    second = await Runner.run(agent, "and?", previous_response_id=first.last_response_id)
    contains(second.final_output, "users=2")


@case("multi-turn")
async def conversation() -> None:
    made = await client().conversations.create()
    agent = Agent(name="Assistant", model=responses(), tools=[get_weather])
    await Runner.run(agent, "What's the weather in Tokyo?", conversation_id=made.id)
    result = await Runner.run(agent, "again", conversation_id=made.id)
    contains(result.final_output, "users=2")


@case("parameters")
async def model_settings() -> None:
    agent = Agent(
        name="English agent",
        instructions="You only speak English",
        model=responses(),
        model_settings=ModelSettings(temperature=0.1, max_tokens=500),
    )
    contains((await Runner.run(agent, "hi")).final_output, "temperature=0.1")


@case("tools")
async def agents_as_tools() -> None:
    spanish = Agent(name="Spanish agent", instructions="You translate to Spanish", model=chat())
    orchestrator = Agent(
        name="orchestrator",
        instructions="You are a translation agent.",
        model=chat(),
        tools=[
            spanish.as_tool(
                tool_name="translate_to_spanish", tool_description="Translate to Spanish"
            )
        ],
    )
    result = await Runner.run(orchestrator, input="Say 'Hello' translated to spanish.")
    contains(result.final_output, "The tool said")


if __name__ == "__main__":
    main()
