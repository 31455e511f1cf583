"""The official Python client, as its README and OpenAI's guides use it. Strict validation is on."""

from __future__ import annotations

import json
from typing import Any

import openai
from kit import BASE, KEY, case, contains, main
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

STRICT: dict[str, Any] = {"_strict_response_validation": True}
client = OpenAI(base_url=BASE, api_key=KEY, **STRICT)


class Event(BaseModel):
    name: str
    age: int


WEATHER_CHAT: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get current temperature for a given location.",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "City and country"}},
            "required": ["location"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
WEATHER: Any = {"type": "function", **WEATHER_CHAT["function"]}
ASKED = "What is the weather like in Paris today?"


# Responses


@case("quickstart")
def responses_quickstart() -> None:
    response = client.responses.create(model="plain", input="Write a short story about a unicorn.")
    contains(response.output_text, "ack: Write a short story", "You are the shop's agent.")


@case("instructions")
def responses_readme() -> None:
    response = client.responses.create(
        model="plain",
        instructions="You are a coding assistant that talks like a pirate.",
        input="How do I check if a Python object is an instance of a class?",
    )
    contains(response.output_text, "talks like a pirate", "instance of a class")


@case("instructions")
def responses_developer_message() -> None:
    response = client.responses.create(
        model="plain",
        input=[
            {"role": "developer", "content": "Talk like a pirate."},
            {"role": "user", "content": "Are semicolons optional in JavaScript?"},
        ],
    )
    contains(response.output_text, "Talk like a pirate.", "semicolons")


@case("instructions")
def responses_instructions_last_for_one_response() -> None:
    first = client.responses.create(model="plain", instructions="Talk like a pirate.", input="hi")
    contains(first.output_text, "pirate")
    second = client.responses.create(model="plain", input="again", previous_response_id=first.id)
    assert "pirate" not in second.output_text, second.output_text


@case("streaming")
def responses_streaming() -> None:
    stream = client.responses.create(model="plain", input="Say double bubble bath.", stream=True)
    kinds, text = [], ""
    for event in stream:
        kinds.append(event.type)
        if event.type == "response.output_text.delta":
            text += event.delta
    contains(text, "double bubble bath")
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


@case("streaming")
def responses_stream_helper() -> None:
    with client.responses.stream(model="plain", input="hello there") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()
    contains(text, "hello there")
    assert final.output_text == text


@case("streaming")
def responses_stream_without_obfuscation() -> None:
    stream = client.responses.create(
        model="plain", input="hi", stream=True, stream_options={"include_obfuscation": False}
    )
    assert [event.type for event in stream][-1] == "response.completed"


@case("streaming")
def responses_background_resumed() -> None:
    made = client.responses.create(model="plain", input="one two", background=True, stream=True)
    seen = []
    for event in made:
        seen.append(event)
        if event.type == "response.in_progress":
            break
    identifier = seen[0].response.id
    rest = client.responses.retrieve(
        identifier, stream=True, starting_after=seen[-1].sequence_number
    )
    numbers = [event.sequence_number for event in [*seen, *rest]]
    assert numbers == list(range(len(numbers))), numbers


@case("multi-turn")
def responses_previous_response() -> None:
    first = client.responses.create(model="plain", input="tell me a joke")
    second = client.responses.create(
        model="plain",
        previous_response_id=first.id,
        input=[{"role": "user", "content": "explain why this is funny."}],
    )
    contains(second.output_text, "explain why", "users=2")


@case("multi-turn")
def responses_by_hand() -> None:
    history: list[Any] = [{"role": "user", "content": "tell me a joke"}]
    first = client.responses.create(model="plain", input=history, store=False)
    history += [{"role": el.role, "content": el.content} for el in first.output]
    history.append({"role": "user", "content": "tell me another"})
    second = client.responses.create(model="plain", input=history, store=False)
    contains(second.output_text, "tell me another", "users=2")


@case("multi-turn")
def responses_output_as_input() -> None:
    history: list[Any] = [{"role": "user", "content": "hi"}]
    first = client.responses.create(model="plain", input=history)
    history += first.output
    history.append({"role": "user", "content": "more"})
    contains(client.responses.create(model="plain", input=history).output_text, "users=2")


@case("multi-turn")
def responses_output_with_tool_calls_as_input() -> None:
    first = client.responses.create(model="tools", input="What is the order status of 7?")
    contains(first.output_text, "order 7 is on its way")
    history: list[Any] = [{"role": "user", "content": "What is the order status of 7?"}]
    history += first.output
    history.append({"role": "user", "content": "thanks"})
    contains(client.responses.create(model="tools", input=history).output_text, "users=2")


@case("multi-turn")
def responses_conversation() -> None:
    conversation = client.conversations.create(metadata={"topic": "demo"})
    for number in (1, 2):
        response = client.responses.create(
            model="plain", input=f"message {number}", conversation=conversation.id
        )
    contains(response.output_text, "users=2")
    items = client.conversations.items.list(conversation.id)
    assert len(list(items)) == 4


@case("multi-turn")
def conversation_items_created() -> None:
    conversation = client.conversations.create(
        items=[{"type": "message", "role": "user", "content": "Hello!"}]
    )
    client.conversations.items.create(
        conversation.id,
        items=[
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "How are you?"}],
            }
        ],
    )
    response = client.responses.create(
        model="plain", input="well?", conversation={"id": conversation.id}
    )
    contains(response.output_text, "users=3")


@case("multi-turn")
def conversation_updated_and_deleted() -> None:
    conversation = client.conversations.create()
    updated = client.conversations.update(conversation.id, metadata={"topic": "project-x"})
    assert updated.metadata == {"topic": "project-x"}
    assert client.conversations.retrieve(conversation.id).id == conversation.id
    assert client.conversations.delete(conversation.id).deleted


@case("tools")
def responses_agents_own_tool() -> None:
    response = client.responses.create(model="tools", input="What is the order status of 7?")
    contains(response.output_text, "order 7 is on its way")


@case("tools")
def responses_function_calling() -> None:
    items: list[Any] = [{"role": "user", "content": ASKED}]
    response = client.responses.create(model="plain", tools=[WEATHER], input=items)
    items += response.output
    calls = [item for item in response.output if item.type == "function_call"]
    assert len(calls) == 1, response.output
    assert calls[0].name == "get_weather"
    assert json.loads(calls[0].arguments) == {"location": "Paris"}
    items.append(
        {
            "type": "function_call_output",
            "call_id": calls[0].call_id,
            "output": json.dumps({"temperature": 14}),
        }
    )
    final = client.responses.create(model="plain", tools=[WEATHER], input=items)
    contains(final.output_text, "The tool said", "14")


@case("tools")
def responses_function_calling_continued() -> None:
    first = client.responses.create(model="plain", tools=[WEATHER], input=ASKED)
    [call] = [item for item in first.output if item.type == "function_call"]
    second = client.responses.create(
        model="plain",
        previous_response_id=first.id,
        tools=[WEATHER],
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "14 degrees"}],
    )
    contains(second.output_text, "14 degrees")
    assert second.id != first.id


@case("tools")
def responses_function_calling_in_a_conversation() -> None:
    conversation = client.conversations.create()
    first = client.responses.create(
        model="plain", tools=[WEATHER], input=ASKED, conversation=conversation.id
    )
    [call] = [item for item in first.output if item.type == "function_call"]
    second = client.responses.create(
        model="plain",
        conversation=conversation.id,
        tools=[WEATHER],
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "15 degrees"}],
    )
    contains(second.output_text, "15 degrees")


@case("tools")
def responses_function_calling_streamed() -> None:
    stream = client.responses.create(model="plain", tools=[WEATHER], input=ASKED, stream=True)
    events = list(stream)
    arguments = "".join(
        event.delta for event in events if event.type == "response.function_call_arguments.delta"
    )
    assert json.loads(arguments) == {"location": "Paris"}
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert done[0].arguments == arguments
    assert events[-1].response.output[-1].type == "function_call"


@case("tools")
def responses_tool_choice_required() -> None:
    response = client.responses.create(
        model="plain", tools=[WEATHER], tool_choice="required", input="hello"
    )
    assert response.output[-1].type == "function_call"


@case("tools")
def responses_tool_choice_named() -> None:
    response = client.responses.create(
        model="plain",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "get_weather"},
        input="hello",
    )
    assert response.output[-1].type == "function_call"


@case("tools")
def responses_tool_choice_none() -> None:
    response = client.responses.create(
        model="plain", tools=[WEATHER], tool_choice="none", input=ASKED
    )
    contains(response.output_text, "ack:")


@case("tools")
def responses_beside_the_agents_tools() -> None:
    response = client.responses.create(
        model="tools", tools=[WEATHER], input="order status of 7, then the weather in Paris"
    )
    [call] = [item for item in response.output if item.type == "function_call"]
    final = client.responses.create(
        model="tools",
        previous_response_id=response.id,
        tools=[WEATHER],
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
    )
    contains(final.output_text, "The tool said")


@case("structured output")
def responses_parse() -> None:
    response = client.responses.parse(
        model="plain",
        input=[
            {"role": "system", "content": "Extract the event information."},
            {"role": "user", "content": "He is called Jason and is 25 years old."},
        ],
        text_format=Event,
    )
    assert response.output_parsed == Event(name="Jason", age=25), response.output_parsed


@case("structured output")
def responses_parse_streamed() -> None:
    with client.responses.stream(
        model="plain", input="He is called Jason, aged 25.", text_format=Event
    ) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == Event(name="Jason", age=25)


@case("structured output")
def responses_json_object() -> None:
    response = client.responses.create(
        model="plain", input="Answer in JSON.", text={"format": {"type": "json_object"}}
    )
    json.loads(response.output_text)


@case("structured output")
def responses_agents_own_type() -> None:
    response = client.responses.create(model="typed", input="It is Lisbon, 500000 people.")
    assert json.loads(response.output_text) == {"name": "Lisbon", "population": 500000}


@case("approval")
def responses_approval() -> None:
    first = client.responses.create(model="approval", input="refund order 7")
    [request] = [item for item in first.output if item.type == "mcp_approval_request"]
    assert request.name == "refund"
    second = client.responses.create(
        model="approval",
        previous_response_id=first.id,
        input=[
            {
                "type": "mcp_approval_response",
                "approval_request_id": request.id,
                "approve": True,
            }
        ],
    )
    contains(second.output_text, "refunded")


@case("approval")
def responses_approval_rejected() -> None:
    first = client.responses.create(model="approval", input="refund order 8")
    [request] = [item for item in first.output if item.type == "mcp_approval_request"]
    second = client.responses.create(
        model="approval",
        previous_response_id=first.id,
        input=[
            {
                "type": "mcp_approval_response",
                "approval_request_id": request.id,
                "approve": False,
            }
        ],
    )
    assert "refunded" not in second.output_text, second.output_text


@case("parameters")
def responses_sampling() -> None:
    response = client.responses.create(model="plain", input="hi", temperature=0.2, top_p=0.9)
    contains(response.output_text, "temperature=0.2", "top_p=0.9")


@case("parameters")
def responses_neutral_parameters() -> None:
    response = client.responses.create(
        model="plain",
        input="hi",
        temperature=1,
        top_p=1,
        reasoning={},
        text={},
        include=["reasoning.encrypted_content"],
        prompt_cache_key="user-1",
        tool_choice="auto",
        parallel_tool_calls=True,
        truncation="disabled",
        metadata={},
        extra_body={"stream_options": None},
    )
    contains(response.output_text, "ack: hi")


@case("parameters")
def responses_reasoning_effort() -> None:
    response = client.responses.create(model="plain", input="hi", reasoning={"effort": "low"})
    contains(response.output_text, "reasoning_effort=low")


@case("parameters")
def responses_max_output_tokens() -> None:
    response = client.responses.create(
        model="plain", input="one two three four five six seven eight nine", max_output_tokens=16
    )
    assert response.status in ("completed", "incomplete")
    cut = client.responses.create(
        model="plain", input=" ".join(["word"] * 40), max_output_tokens=16
    )
    assert cut.status == "incomplete", cut.status
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


@case("parameters")
def responses_not_stored() -> None:
    response = client.responses.create(model="plain", input="hi", store=False)
    contains(response.output_text, "ack: hi")


@case("objects")
def responses_retrieved_and_deleted() -> None:
    made = client.responses.create(model="plain", input="hi")
    assert client.responses.retrieve(made.id).output_text == made.output_text
    items = client.responses.input_items.list(made.id)
    assert len(list(items)) == 1
    client.responses.delete(made.id)
    try:
        client.responses.retrieve(made.id)
    except openai.NotFoundError:
        return
    raise AssertionError("a deleted response was found")


@case("objects")
def responses_background() -> None:
    import time

    response = client.responses.create(model="plain", input="hi", background=True)
    while response.status in ("queued", "in_progress"):
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    assert response.status == "completed"


@case("objects")
def responses_cancelled() -> None:
    made = client.responses.create(model="plain", input="slowly " + "on " * 60, background=True)
    cancelled = client.responses.cancel(made.id)
    assert cancelled.status == "cancelled", cancelled.status


@case("objects")
def models() -> None:
    listed = {model.id for model in client.models.list()}
    assert {"plain", "tools", "typed", "approval"} <= listed, listed
    assert client.models.retrieve("plain").id == "plain"


@case("objects")
def raw_response_and_request_id() -> None:
    raw = client.responses.with_raw_response.create(model="plain", input="hi")
    assert raw.headers.get("x-request-id")
    assert raw.parse()._request_id == raw.headers["x-request-id"]


# Chat Completions


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


# Errors

HI: dict[str, Any] = {"model": "plain", "input": "hi"}


def refused(kind: Any, by: OpenAI = client, **request: Any) -> Any:
    try:
        by.responses.create(**request)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected")


@case("errors")
def unknown_model() -> None:
    error = refused(openai.NotFoundError, model="nobody", input="hi")
    assert error.code == "model_not_found"


@case("errors")
def wrong_key() -> None:
    wrong = OpenAI(base_url=BASE, api_key="wrong", **STRICT)
    assert refused(openai.AuthenticationError, wrong, **HI).code == "invalid_api_key"


@case("errors")
def unknown_response() -> None:
    try:
        client.responses.retrieve("resp_nothing")
    except openai.NotFoundError:
        return
    raise AssertionError("an unknown response was found")


@case("errors")
def key_used_twice() -> None:
    headers = {"Idempotency-Key": f"case-{openai.__version__}"}
    first = client.responses.create(model="plain", input="hi", extra_headers=headers)
    again = client.responses.create(model="plain", input="hi", extra_headers=headers)
    assert first.id == again.id
    refused(openai.UnprocessableEntityError, model="plain", input="other", extra_headers=headers)


@case("quickstart")
async def async_client() -> None:
    async with AsyncOpenAI(base_url=BASE, api_key=KEY, **STRICT) as asynchronous:
        response = await asynchronous.responses.create(
            model="plain", input="Explain disestablishmentarianism to a smart five year old."
        )
        contains(response.output_text, "ack: Explain")


@case("streaming")
async def async_streaming() -> None:
    async with AsyncOpenAI(base_url=BASE, api_key=KEY, **STRICT) as asynchronous:
        stream = await asynchronous.responses.create(
            model="plain", input="Write a one-sentence story.", stream=True
        )
        kinds = [event.type async for event in stream]
        assert kinds[-1] == "response.completed"


if __name__ == "__main__":
    main()
