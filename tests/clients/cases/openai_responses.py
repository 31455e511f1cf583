"""The Responses and Conversations APIs, as OpenAI's guides use them."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
from kit import case, contains
from openai_shared import ASKED, WEATHER, Event, client


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
