"""LangChain's ChatOpenAI, as its documentation uses it, and agents made with it."""

from __future__ import annotations

from typing import Any

from kit import BASE, KEY, case, contains, main
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field


def model(name: str = "plain", **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=BASE, api_key=KEY, **options)


def responses(name: str = "plain", **options: Any) -> ChatOpenAI:
    return model(name, use_responses_api=True, **options)


@tool
def get_weather(location: str) -> str:
    """Get the weather at a location."""
    return f"It is sunny in {location}."


class Person(BaseModel):
    """Information about a person."""

    name: str = Field(description="The name of the person")
    age: int = Field(description="The age of the person")


MESSAGES = [
    ("system", "You are a helpful assistant that translates English to French."),
    ("human", "I love programming."),
]


@case("quickstart")
def invoke() -> None:
    contains(model().invoke("Hello!").content, "ack: Hello!")


@case("instructions")
def invoke_with_system() -> None:
    contains(model().invoke(MESSAGES).content, "translates English to French", "ack: I love")


@case("instructions")
def chain() -> None:
    prompt = ChatPromptTemplate.from_messages(
        [
            ("system", "You translate {source} to {target}."),
            ("human", "{input}"),
        ]
    )
    parts = prompt | model() | StrOutputParser()
    answer = parts.invoke({"source": "English", "target": "German", "input": "I love it."})
    contains(answer, "English to German", "I love it.")


@case("streaming")
def stream() -> None:
    contains("".join(part.content for part in model().stream("Hello there")), "ack: Hello there")


@case("streaming")
async def stream_async() -> None:
    contains("".join([part.content async for part in model().astream("Hi you")]), "ack: Hi you")


@case("quickstart")
def batch() -> None:
    for answer, said in zip(model().batch(["one", "two"]), ("one", "two"), strict=True):
        contains(answer.content, f"ack: {said}")


@case("multi-turn")
def multi_turn() -> None:
    history: list[Any] = [HumanMessage("hi")]
    history += [model().invoke(history), HumanMessage("more")]
    contains(model().invoke(history).content, "users=2")


@case("parameters")
def documented_parameters() -> None:
    made = model(temperature=0, max_tokens=None, timeout=None, max_retries=2)
    contains(made.invoke("hi").content, "temperature=0")


@case("tools")
def bind_tools() -> None:
    bound = model().bind_tools([get_weather])
    history: list[Any] = [HumanMessage("What is the weather in Paris?")]
    answer = bound.invoke(history)
    [call] = answer.tool_calls
    assert call["args"] == {"location": "Paris"}, call
    history += [answer, get_weather.invoke(call)]
    assert isinstance(history[-1], ToolMessage)
    contains(bound.invoke(history).content, "sunny in Paris")


@case("tools")
def bind_tools_streamed() -> None:
    gathered: Any = None
    for part in model().bind_tools([get_weather]).stream("What is the weather in Paris?"):
        gathered = part if gathered is None else gathered + part
    assert gathered.tool_calls[0]["args"] == {"location": "Paris"}, gathered


@case("tools")
def agent() -> None:
    made = create_agent(model(), tools=[get_weather], system_prompt="You are a helpful assistant")
    asked = {"messages": [{"role": "user", "content": "what is the weather in Paris"}]}
    contains(made.invoke(asked)["messages"][-1].content, "sunny in Paris", "helpful assistant")


@case("structured output")
def structured_output() -> None:
    found = model().with_structured_output(Person).invoke("He is called Jason and is 25.")
    assert found == Person(name="Jason", age=25), found


@case("structured output")
def structured_output_by_tools() -> None:
    made = model().with_structured_output(Person, method="function_calling")
    assert made.invoke("He is called Jason and is 25.") == Person(name="Jason", age=25)


@case("structured output")
def structured_output_by_json_mode() -> None:
    made = model().with_structured_output(None, method="json_mode")
    assert isinstance(made.invoke("Answer in JSON."), dict)


@case("quickstart")
def responses_invoke() -> None:
    contains(responses().invoke("Hello!").text, "ack: Hello!")


@case("instructions")
def responses_invoke_with_system() -> None:
    contains(responses().invoke(MESSAGES).text, "translates English to French")


@case("streaming")
def responses_stream() -> None:
    contains("".join(part.text for part in responses().stream("Hello there")), "Hello there")


@case("multi-turn")
def responses_multi_turn() -> None:
    history: list[Any] = [HumanMessage("hi")]
    history += [responses().invoke(history), HumanMessage("more")]
    contains(responses().invoke(history).text, "users=2")


@case("multi-turn")
def responses_previous() -> None:
    made = responses(use_previous_response_id=True)
    history: list[Any] = [HumanMessage("hi")]
    history += [made.invoke(history), HumanMessage("more")]
    contains(made.invoke(history).text, "users=2")


@case("multi-turn")
def responses_of_an_agent_with_tools() -> None:
    made = responses("tools")
    history: list[Any] = [HumanMessage("order status of 7?")]
    answer = made.invoke(history)
    contains(answer.text, "order 7 is on its way")
    history += [answer, HumanMessage("thanks")]
    contains(made.invoke(history).text, "users=2")


@case("tools")
def responses_bind_tools() -> None:
    bound = responses().bind_tools([get_weather])
    history: list[Any] = [HumanMessage("What is the weather in Paris?")]
    answer = bound.invoke(history)
    [call] = answer.tool_calls
    history += [answer, get_weather.invoke(call)]
    contains(bound.invoke(history).text, "sunny in Paris")


@case("structured output")
def responses_structured_output() -> None:
    found = responses().with_structured_output(Person).invoke("He is called Jason and is 25.")
    assert found == Person(name="Jason", age=25), found


@case("instructions")
def system_in_the_middle() -> None:
    history = [HumanMessage("a"), AIMessage("b"), SystemMessage("Be brief."), HumanMessage("c")]
    contains(model().invoke(history).content, "Be brief.", "ack: c")


if __name__ == "__main__":
    main()
