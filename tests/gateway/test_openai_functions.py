"""Functions that requests bring, and approvals, with the real client."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest

from tests.gateway.conftest import Served

PAINT: Any = {
    "type": "function",
    "name": "paint",
    "description": "Paint a wall.",
    "parameters": {
        "type": "object",
        "properties": {"colour": {"type": "string"}},
        "required": ["colour"],
        "additionalProperties": False,
    },
    "strict": True,
}
CHAT_PAINT: Any = {
    "type": "function",
    "function": {name: value for name, value in PAINT.items() if name != "type"},
}
ASKED = '/paint {"colour": "red"}\n/paint {"colour": "blue"}\n/echo {"text": "own"}'


def output(call: Any, text: str) -> Any:
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}


def test_a_response_asks_for_functions_and_goes_on(client: openai.OpenAI) -> None:
    asked = client.responses.create(
        model="tools", input=ASKED, tools=[PAINT], metadata={"part": "one"}
    )
    assert asked.status == "completed"
    calls = [item for item in asked.output if item.type == "function_call"]
    assert [(c.name, json.loads(c.arguments)) for c in calls] == [
        ("paint", {"colour": "red"}),
        ("paint", {"colour": "blue"}),
    ]
    [own] = [item for item in asked.output if item.type == "mcp_call"]
    assert (own.name, own.output) == ("echo", "own")
    assert asked.tools[0].to_dict() == PAINT
    assert asked.usage is not None
    answers = [output(calls[0], "is red"), output(calls[1], "is blue")]
    # A call without its output is refused, and changes nothing.
    with pytest.raises(openai.BadRequestError, match=calls[1].call_id):
        client.responses.create(
            model="tools", previous_response_id=asked.id, input=answers[:1], tools=[PAINT]
        )
    done = client.responses.create(
        model="tools",
        previous_response_id=asked.id,
        input=answers,
        tools=[PAINT],
        metadata={"part": "two"},
    )
    assert done.output_text == "paint: is red\npaint: is blue\necho: own"
    assert [item.type for item in done.output] == ["message"]
    assert done.previous_response_id == asked.id
    assert done.id != asked.id
    # Each keeps what it showed; a repeat gets the same; another answer is refused.
    assert client.responses.retrieve(asked.id).to_dict() == asked.to_dict()
    assert client.responses.retrieve(done.id).to_dict() == done.to_dict()
    again = client.responses.create(
        model="tools", previous_response_id=asked.id, input=answers, tools=[PAINT]
    )
    assert again.id == done.id
    with pytest.raises(openai.ConflictError, match="is not waiting"):
        client.responses.create(
            model="tools",
            previous_response_id=asked.id,
            input=[output(calls[0], "is green"), answers[1]],
        )
    given = client.responses.input_items.list(done.id, order="asc").data
    assert [item.type for item in given] == ["function_call_output"] * 2
    # What follows, follows the whole turn.
    later = client.responses.create(
        model="tools", previous_response_id=done.id, input="What did I say?"
    )
    assert "You said 1 thing" in later.output_text


def test_a_response_shows_its_own_request(client: openai.OpenAI) -> None:
    other: Any = {**PAINT, "name": "other"}
    last = client.responses.create(
        model="tools", input='/paint {"colour": "red"}', tools=[PAINT], instructions="Be brief."
    )
    client.responses.create(
        model="tools",
        previous_response_id=last.id,
        input=[output(last.output[0], "ok")],
        tools=[other],
    )
    assert client.responses.retrieve(last.id).to_dict() == last.to_dict()


def test_streams_of_both_parts(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="slow", input='/paint {"colour": "rather long and red"}', tools=[PAINT]
    ) as stream:
        events = list(stream)
        asked = stream.get_final_response()
    pieces = [e for e in events if e.type == "response.function_call_arguments.delta"]
    assert len(pieces) > 1
    [call] = asked.output
    assert call.type == "function_call"
    assert "".join(piece.delta for piece in pieces) == call.arguments
    sequence = [e.sequence_number for e in events]
    assert sequence == list(range(len(sequence)))
    with client.responses.stream(
        model="slow", previous_response_id=asked.id, input=[output(call, "is red")]
    ) as stream:
        types = [e.type for e in stream]
        done = stream.get_final_response()
    assert types[0] == "response.created"
    assert "response.output_text.delta" in types
    assert done.output_text == "paint: is red"
    # Read again, also the first part after the second, they are the same.
    for response, count in ((asked, len(sequence)), (done, len(types))):
        again = list(client.responses.retrieve(response.id, stream=True))
        assert len(again) == count
        assert again[-1].type == "response.completed"
        assert again[-1].response.output == client.responses.retrieve(response.id).output


def test_the_whole_input_goes_on_in_the_same_turn(client: openai.OpenAI) -> None:
    said: list[Any] = [{"role": "user", "content": ASKED}]
    asked = client.responses.create(model="tools", input=said, tools=[PAINT])
    calls = [item for item in asked.output if item.type == "function_call"]
    said += [*asked.output, *(output(call, "ok") for call in calls)]
    done = client.responses.create(model="tools", input=said, tools=[PAINT])
    # The agent's own call is there, which the first response alone had made.
    assert done.output_text == "paint: ok\npaint: ok\necho: own"
    assert done.id.startswith(asked.id)
    # Another beginning is another conversation, with the same calls in its history.
    other = client.responses.create(
        model="tools", input=[{"role": "user", "content": "hi"}, *said[1:]], tools=[PAINT]
    )
    assert not other.id.startswith(asked.id)
    assert other.output_text == "echo: own"


def test_a_conversation_goes_on_and_is_not_blocked(client: openai.OpenAI) -> None:
    conversation = client.conversations.create().id
    asked = client.responses.create(
        model="tools", conversation=conversation, input='/paint {"colour": "red"}', tools=[PAINT]
    )
    [call] = asked.output
    done = client.responses.create(
        model="tools",
        conversation=conversation,
        input=[output(call, "is red"), {"role": "user", "content": "and then?"}],
    )
    assert done.output_text == "You said: and then?"
    client.responses.create(
        model="tools", conversation=conversation, input='/paint {"colour": "red"}', tools=[PAINT]
    )
    # Nobody answers: the next message goes on all the same.
    moved = client.responses.create(model="tools", conversation=conversation, input="never mind")
    assert moved.output_text == "You said: never mind"
    types = [item.type for item in client.conversations.items.list(conversation, order="asc")]
    one = ["message", "function_call", "function_call_output", "message", "message"]
    assert types == one * 2


def test_chat_completions_ask_and_go_on(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    asked = client.chat.completions.create(model="tools", messages=messages, tools=[CHAT_PAINT])
    [choice] = asked.choices
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls or []
    assert len(calls) == 2
    messages.append(choice.message.to_dict())
    messages += [{"role": "tool", "tool_call_id": c.id, "content": "ok"} for c in calls]
    done = client.chat.completions.create(model="tools", messages=messages, tools=[CHAT_PAINT])
    assert done.choices[0].message.content == "paint: ok\npaint: ok\necho: own"
    assert done.choices[0].finish_reason == "stop"
    assert done.id.startswith(asked.id)
    # Also calls of another model, or of a turn that is gone.
    messages[0] = {"role": "user", "content": "another beginning"}
    other = client.chat.completions.create(model="tools", messages=messages, tools=[CHAT_PAINT])
    assert other.choices[0].message.content == "paint: ok\npaint: ok"


def test_chat_streams_calls(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    with client.chat.completions.stream(
        model="tools", messages=messages, tools=[CHAT_PAINT], stream_options={"include_usage": True}
    ) as stream:
        for _ in stream:
            pass
        asked = stream.get_final_completion()
    calls = asked.choices[0].message.tool_calls or []
    assert [c.function.arguments for c in calls] == ['{"colour":"red"}', '{"colour":"blue"}']
    assert asked.choices[0].finish_reason == "tool_calls"
    assert asked.usage is not None
    messages.append(asked.choices[0].message.to_dict())
    messages += [{"role": "tool", "tool_call_id": c.id, "content": "ok"} for c in calls]
    with client.chat.completions.stream(model="tools", messages=messages) as stream:
        for _ in stream:
            pass
        done = stream.get_final_completion()
    assert done.choices[0].message.content == "paint: ok\npaint: ok\necho: own"


def test_a_chat_completion_that_demands_a_call_ends_with_it(
    client: openai.OpenAI, http: httpx2.Client
) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="tools",
        messages=[{"role": "user", "content": "the colour is red"}],
        tools=[CHAT_PAINT],
        tool_choice={"type": "function", "function": {"name": "paint"}},
    )
    call: Any = (raw.parse().choices[0].message.tool_calls or [])[0]
    assert json.loads(call.function.arguments) == {"colour": "the colour is red"}
    assert http.get(f"/turns/{raw.headers['x-response-id']}").json()["status"] == "completed"


def test_choices(client: openai.OpenAI) -> None:
    def ask(**more: Any) -> Any:
        return client.responses.create(
            model="tools", input='/paint {"colour": "red"}', tools=[PAINT], **more
        )

    assert ask(tool_choice="none").output_text.startswith("You said: /paint")
    forced = ask(tool_choice={"type": "function", "name": "paint"}, parallel_tool_calls=False)
    assert forced.output[0].type == "function_call"
    assert forced.tool_choice.to_dict() == {"type": "function", "name": "paint"}
    assert forced.parallel_tool_calls is False
    assert ask(tool_choice="required").output[0].type == "function_call"
    with pytest.raises(openai.BadRequestError, match="not among the client tools"):
        ask(tool_choice={"type": "function", "name": "other"})
    with pytest.raises(openai.BadRequestError, match="requires a call"):
        client.responses.create(model="tools", input="hi", tool_choice="required")
    with pytest.raises(openai.BadRequestError, match="'web_search'"):
        client.responses.create(model="tools", input="hi", tools=[{"type": "web_search"}])
    echo: Any = {**PAINT, "name": "echo"}
    with pytest.raises(openai.BadRequestError, match="its own tool named 'echo'"):
        client.responses.create(model="tools", input="hi", tools=[echo])


def test_approvals_in_the_words_of_the_api(client: openai.OpenAI, http: httpx2.Client) -> None:
    asked = client.responses.create(model="tools", input='/sign {"paper": "lease"}')
    [request] = asked.output
    assert request.type == "mcp_approval_request"
    assert (request.name, json.loads(request.arguments)) == ("sign", {"paper": "lease"})
    pending = http.get(f"/turns/{asked.id}/calls").json()["calls"]
    assert [(call["tool"], call["kind"]) for call in pending] == [("sign", "approval")]
    answer: Any = {"type": "mcp_approval_response", "approval_request_id": request.id}
    yes: Any = [{**answer, "approve": True}]
    no: Any = [{**answer, "approve": False}]
    done = client.responses.create(model="tools", previous_response_id=asked.id, input=yes)
    call = done.output[0]
    assert call.type == "mcp_call"
    assert (call.output, call.approval_request_id) == ("signed lease", request.id)
    assert done.output_text == "sign: signed lease"
    assert client.responses.retrieve(asked.id).to_dict() == asked.to_dict()
    # A repeat, as of a client that lost the answer, gets the same answer.
    again = client.responses.create(model="tools", previous_response_id=asked.id, input=yes)
    assert again.to_dict() == done.to_dict()
    with pytest.raises(openai.ConflictError, match="was already approved: a decision is final"):
        client.responses.create(model="tools", previous_response_id=asked.id, input=no)


def test_a_rejection_is_repeated_while_its_turn_goes_on(client: openai.OpenAI) -> None:
    asked = client.responses.create(
        model="tools", input='/sign {"paper": "a"}', conversation=client.conversations.create().id
    )
    answer: Any = {
        "type": "mcp_approval_response",
        "approval_request_id": asked.output[0].id,
        "approve": False,
        "reason": "no ink",
    }

    def decide(answer: Any) -> Any:
        return client.responses.create(
            model="tools", previous_response_id=asked.id, input=[answer], background=True
        )

    first, second = decide(answer), decide(answer)
    assert first.id == second.id != asked.id
    with pytest.raises(openai.ConflictError, match="was already rejected"):
        decide({**answer, "approve": True})
    while (done := client.responses.retrieve(first.id)).status != "completed":
        pass
    assert "no ink" in done.output_text
    assert decide(answer).output_text == done.output_text


def test_a_stream_of_an_approval(client: openai.OpenAI) -> None:
    with client.responses.stream(model="tools", input='/sign {"paper": "a"}') as stream:
        types = [event.type for event in stream]
        asked = stream.get_final_response()
    assert types[-1] == "response.completed"
    request: Any = asked.output[0]
    answer: Any = {
        "type": "mcp_approval_response",
        "approval_request_id": request.id,
        "approve": False,
        "reason": "no ink",
    }
    with client.responses.stream(
        model="tools", previous_response_id=asked.id, input=[answer]
    ) as stream:
        types = [event.type for event in stream]
        done = stream.get_final_response()
    assert "response.mcp_call.failed" in types
    assert "no ink" in done.output_text


def test_others_may_approve(client: openai.OpenAI, http: httpx2.Client) -> None:
    asked = client.responses.create(
        model="tools",
        input='/sign {"paper": "lease"}',
        background=True,
        tools=[{"type": "mcp", "server_label": "agentapi", "require_approval": "never"}],
    )
    assert asked.status in ("queued", "in_progress")
    calls: list[Any] = []
    while not calls:
        calls = http.get(f"/turns/{asked.id}/calls").json()["calls"]
    url = f"/turns/{asked.id}/calls/{calls[0]['call_id']}"
    assert http.post(url, json={"verdict": "approved"}).status_code == 200
    while (done := client.responses.retrieve(asked.id)).status != "completed":
        pass
    assert done.output_text == "sign: signed lease"


def test_the_native_api(http: httpx2.Client, served: Served) -> None:
    body = {
        "agent": "tools",
        "message": '/paint {"colour": "red"}',
        "client_tools": [{"name": "paint", "parameters": PAINT["parameters"]}],
    }
    turn = http.post("/conversations/native-functions/turns", json=body).json()
    calls: list[Any] = []
    while not calls:
        calls = http.get(f"/turns/{turn['turn_id']}/calls").json()["calls"]
    [call] = calls
    assert (call["kind"], call["arguments"]) == ("client", {"colour": "red"})
    url = f"/turns/{turn['turn_id']}/calls/{call['call_id']}/output"
    with served.http(served.evil) as other:
        assert other.post(url, json={"output": "evil"}).status_code == 404
    assert http.post(url, json={"output": "is red"}).status_code == 200
    assert http.post(url, json={"output": "is blue"}).status_code == 409
    while (done := http.get(f"/turns/{turn['turn_id']}").json())["status"] != "completed":
        pass
    assert done["text"] == "paint: is red"
    late = http.post(f"/turns/{turn['turn_id']}/cancel")
    assert late.status_code == 409
    assert late.json()["error"]["code"] == "cancelled_too_late"
