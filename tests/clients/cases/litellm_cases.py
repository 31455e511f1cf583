"""LiteLLM, as its documentation uses it with a server that speaks OpenAI's API."""

from __future__ import annotations

import json
from typing import Any

import litellm
from kit import BASE, KEY, case, contains, main
from pydantic import BaseModel

TO: dict[str, Any] = {"api_base": BASE, "api_key": KEY}
HELLO = [{"role": "user", "content": "Hello, how are you?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {
                "type": "object",
                "properties": {"location": {"type": "string"}},
                "required": ["location"],
            },
        },
    }
]


class Event(BaseModel):
    name: str
    age: int


@case("quickstart")
def completion() -> None:
    answer = litellm.completion(model="openai/plain", messages=HELLO, **TO)
    contains(answer.choices[0].message.content, "ack: Hello, how are you?")


@case("quickstart")
async def acompletion() -> None:
    answer = await litellm.acompletion(model="openai/plain", messages=HELLO, **TO)
    contains(answer.choices[0].message.content, "ack: Hello")


@case("streaming")
def streaming() -> None:
    parts = litellm.completion(model="openai/plain", messages=HELLO, stream=True, **TO)
    contains("".join(p.choices[0].delta.content or "" for p in parts), "ack: Hello, how are you?")


@case("instructions")
def system_message() -> None:
    messages = [{"role": "system", "content": "Be a pirate."}, *HELLO]
    answer = litellm.completion(model="openai/plain", messages=messages, **TO)
    contains(answer.choices[0].message.content, "Be a pirate.")


@case("parameters")
def sampling() -> None:
    answer = litellm.completion(
        model="openai/plain", messages=HELLO, temperature=0.2, max_tokens=100, top_p=0.9, **TO
    )
    contains(answer.choices[0].message.content, "temperature=0.2")


@case("multi-turn")
def multi_turn() -> None:
    messages: list[Any] = list(HELLO)
    answer = litellm.completion(model="openai/plain", messages=messages, **TO)
    messages += [answer.choices[0].message, {"role": "user", "content": "more"}]
    again = litellm.completion(model="openai/plain", messages=messages, **TO)
    contains(again.choices[0].message.content, "users=2")


@case("tools")
def function_calling() -> None:
    messages: list[Any] = [{"role": "user", "content": "What's the weather like in Paris?"}]
    first = litellm.completion(
        model="openai/plain", messages=messages, tools=TOOLS, tool_choice="auto", **TO
    )
    message = first.choices[0].message
    [call] = message.tool_calls
    assert json.loads(call.function.arguments) == {"location": "Paris"}
    messages += [
        message,
        {
            "tool_call_id": call.id,
            "role": "tool",
            "name": call.function.name,
            "content": "22 degrees",
        },
    ]
    second = litellm.completion(model="openai/plain", messages=messages, tools=TOOLS, **TO)
    contains(second.choices[0].message.content, "22 degrees")


@case("tools")
def function_calling_streamed() -> None:
    asked = [{"role": "user", "content": "What's the weather like in Paris?"}]
    parts = list(
        litellm.completion(model="openai/plain", messages=asked, tools=TOOLS, stream=True, **TO)
    )
    built = litellm.stream_chunk_builder(parts, messages=asked)
    [call] = built.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"location": "Paris"}


@case("structured output")
def json_schema() -> None:
    answer = litellm.completion(
        model="openai/plain",
        messages=[{"role": "user", "content": "He is called Jason and is 25."}],
        response_format=Event,
        **TO,
    )
    assert Event.model_validate_json(answer.choices[0].message.content).name == "Jason"


@case("structured output")
def json_mode() -> None:
    answer = litellm.completion(
        model="openai/plain",
        messages=[{"role": "user", "content": "Answer in JSON."}],
        response_format={"type": "json_object"},
        **TO,
    )
    json.loads(answer.choices[0].message.content)


@case("quickstart")
def responses() -> None:
    answer = litellm.responses(model="openai/plain", input="Tell me a story.", **TO)
    contains(answer.output[-1].content[0].text, "ack: Tell me a story.")


@case("streaming")
def responses_streaming() -> None:
    kinds = [
        str(event.type.value if hasattr(event.type, "value") else event.type)
        for event in litellm.responses(model="openai/plain", input="hi", stream=True, **TO)
    ]
    assert kinds[-1] == "response.completed", kinds


@case("instructions")
def responses_instructions() -> None:
    answer = litellm.responses(
        model="openai/plain", input="hi", instructions="Be a pirate.", max_output_tokens=100, **TO
    )
    contains(answer.output[-1].content[0].text, "Be a pirate.")


@case("errors")
def unknown_model() -> None:
    try:
        litellm.completion(model="openai/nobody", messages=HELLO, **TO)
    except litellm.exceptions.NotFoundError:
        return
    raise AssertionError("an unknown model was accepted")


@case("quickstart")
def text_completion() -> None:
    answer = litellm.text_completion(model="openai/plain", prompt="Say this is a test", **TO)
    contains(answer.choices[0].text, "ack")


if __name__ == "__main__":
    main()
