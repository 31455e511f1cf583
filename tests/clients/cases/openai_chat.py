"""Chat Completions, as OpenAI's guides use them."""

from __future__ import annotations

import json
from typing import Any

from kit import case, contains
from openai_shared import ASKED, WEATHER_CHAT, Event, client
from pydantic import BaseModel


@case("quickstart")
def chat_quickstart() -> None:
    completion = client.chat.completions.create(
        model="plain",
        messages=[
            {"role": "user", "content": "Write a one-sentence bedtime story about a unicorn."}
        ],
    )
    contains(completion.choices[0].message.content, "ack: Write a one-sentence bedtime story")


@case("instructions")
def chat_readme() -> None:
    completion = client.chat.completions.create(
        model="plain",
        messages=[
            {"role": "developer", "content": "Talk like a pirate."},
            {"role": "user", "content": "How do I check if an object is an instance of a class?"},
        ],
    )
    contains(completion.choices[0].message.content, "Talk like a pirate.")


@case("instructions")
def chat_system_message() -> None:
    completion = client.chat.completions.create(
        model="plain",
        messages=[
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Hello!"},
        ],
    )
    contains(completion.choices[0].message.content, "You are a helpful assistant.", "ack: Hello!")


@case("streaming")
def chat_streaming() -> None:
    stream = client.chat.completions.create(
        model="plain",
        messages=[{"role": "user", "content": "Say this is a test"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    contains(text, "ack: Say this is a test")
    assert chunks[-1].usage is not None


@case("multi-turn")
def chat_multi_turn() -> None:
    completion = client.chat.completions.create(
        model="plain",
        messages=[
            {"role": "user", "content": "knock knock."},
            {"role": "assistant", "content": "Who's there?"},
            {"role": "user", "content": "Orange."},
        ],
    )
    contains(completion.choices[0].message.content, "Orange", "users=2")


@case("multi-turn")
def chat_message_as_input() -> None:
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    first = client.chat.completions.create(model="plain", messages=messages)
    messages.append(first.choices[0].message)
    messages.append({"role": "user", "content": "more"})
    second = client.chat.completions.create(model="plain", messages=messages)
    contains(second.choices[0].message.content, "users=2")


@case("tools")
def chat_function_calling() -> None:
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    first = client.chat.completions.create(model="plain", messages=messages, tools=[WEATHER_CHAT])
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {"location": "Paris"}
    messages.append(first.choices[0].message)
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "14 degrees"})
    second = client.chat.completions.create(model="plain", messages=messages, tools=[WEATHER_CHAT])
    contains(second.choices[0].message.content, "The tool said", "14 degrees")
    messages.append(second.choices[0].message)
    messages.append({"role": "user", "content": "thank you"})
    third = client.chat.completions.create(model="plain", messages=messages, tools=[WEATHER_CHAT])
    contains(third.choices[0].message.content, "ack: thank you", "users=2")


@case("tools")
def chat_function_calling_streamed() -> None:
    stream = client.chat.completions.create(
        model="plain",
        messages=[{"role": "user", "content": ASKED}],
        tools=[WEATHER_CHAT],
        stream=True,
    )
    arguments, reasons = "", []
    for chunk in stream:
        if not chunk.choices:
            continue
        for call in chunk.choices[0].delta.tool_calls or []:
            arguments += call.function.arguments or ""
        reasons.append(chunk.choices[0].finish_reason)
    assert json.loads(arguments) == {"location": "Paris"}
    assert reasons[-1] == "tool_calls"


@case("tools")
def chat_tool_choice() -> None:
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        completion = client.chat.completions.create(
            model="plain",
            messages=[{"role": "user", "content": "hello"}],
            tools=[WEATHER_CHAT],
            tool_choice=choice,
        )
        assert completion.choices[0].message.tool_calls


@case("tools")
def chat_run_with_the_agents_tool() -> None:
    completion = client.chat.completions.create(
        model="tools", messages=[{"role": "user", "content": "order status of 7?"}]
    )
    contains(completion.choices[0].message.content, "order 7 is on its way")


@case("structured output")
def chat_parse() -> None:
    completion = client.chat.completions.parse(
        model="plain",
        messages=[
            {"role": "system", "content": "Extract the event information."},
            {"role": "user", "content": "He is called Jason and is 25 years old."},
        ],
        response_format=Event,
    )
    assert completion.choices[0].message.parsed == Event(name="Jason", age=25)


@case("structured output")
def chat_json_object() -> None:
    completion = client.chat.completions.create(
        model="plain",
        messages=[{"role": "user", "content": "Answer in JSON."}],
        response_format={"type": "json_object"},
    )
    json.loads(completion.choices[0].message.content or "")


@case("structured output")
def chat_parse_an_agents_own_type() -> None:
    class City(BaseModel):
        name: str
        population: int

    completion = client.chat.completions.parse(
        model="typed",
        messages=[{"role": "user", "content": "It is Lisbon, 500000 people."}],
        response_format=City,
    )
    assert completion.choices[0].message.parsed == City(name="Lisbon", population=500000)


@case("parameters")
def chat_sampling() -> None:
    completion = client.chat.completions.create(
        model="plain",
        messages=[{"role": "user", "content": "hi"}],
        temperature=0.1,
        max_completion_tokens=500,
        seed=1,
        user="user-1",
    )
    contains(completion.choices[0].message.content, "temperature=0.1")


@case("parameters")
def chat_neutral_parameters() -> None:
    completion = client.chat.completions.create(
        model="plain",
        messages=[{"role": "user", "content": "hi", "name": "tina"}],
        temperature=1,
        top_p=1,
        n=1,
        presence_penalty=0,
        frequency_penalty=0,
        stop=[],
        logit_bias={},
        logprobs=False,
        tool_choice="none",
        store=False,
    )
    contains(completion.choices[0].message.content, "ack: hi")


@case("parameters")
def chat_stop() -> None:
    completion = client.chat.completions.create(
        model="plain", messages=[{"role": "user", "content": "hi"}], stop=["END"]
    )
    contains(completion.choices[0].message.content, "ack: hi")


@case("parameters")
def chat_cut_by_length() -> None:
    completion = client.chat.completions.create(
        model="plain",
        messages=[{"role": "user", "content": " ".join(["word"] * 30)}],
        max_tokens=5,
    )
    assert completion.choices[0].finish_reason == "length"


@case("objects")
def chat_stored() -> None:
    made = client.chat.completions.create(
        model="plain", messages=[{"role": "user", "content": "hi"}], store=True
    )
    assert client.chat.completions.retrieve(made.id).id == made.id
    listed = client.chat.completions.list()
    assert made.id in [one.id for one in listed]


@case("objects")
def chat_image() -> None:
    pixel = (
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwAD"
        "hgGAWjR9awAAAABJRU5ErkJggg=="
    )
    completion = client.chat.completions.create(
        model="plain",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What's in this image?"},
                    {"type": "image_url", "image_url": {"url": pixel}},
                ],
            }
        ],
    )
    contains(completion.choices[0].message.content, "What's in this image?")
