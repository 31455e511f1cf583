"""The real `openai` client: responses."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from pathlib import Path

import openai
import pytest
import redis

from tests.gate import Gate
from tests.gateway.conftest import Served

SLOW = "one two three four five six seven eight nine ten"


def test_models_are_agents(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"keyless", "slow", "tools"} <= set(names)
    assert names == sorted(names)
    assert client.models.retrieve("slow").id == "slow"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


def test_a_response_is_a_turn(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="tools", input="hi", metadata={"order": "7"}, safety_identifier="user-1", user="u"
    )
    assert (made.status, made.output_text, made.model) == ("completed", "You said: hi", "tools")
    assert made.usage is not None
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens > 0
    assert made.metadata == {"order": "7"}
    assert (made.safety_identifier, made.user, made.conversation) == ("user-1", "u", None)
    assert client.responses.retrieve(made.id) == made
    [item] = client.responses.input_items.list(made.id)
    assert item.type == "message"
    assert item.content[0].type == "input_text"
    assert item.content[0].text == "hi"


def test_tools_that_ran_are_calls_of_a_server(client: openai.OpenAI) -> None:
    made = client.responses.create(model="tools", input='/echo {"text": "hi"}')
    call, message = made.output
    assert call.type == "mcp_call"
    assert (call.name, call.arguments, call.output) == ("echo", '{"text":"hi"}', "hi")
    assert message.type == "message"
    assert made.output_text == "echo: hi"
    broken = client.responses.create(model="tools", input="/broken {}").output[0]
    assert broken.type == "mcp_call"
    assert broken.status == "failed"
    assert broken.output is None
    assert broken.error is not None


def test_a_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model="slow", input="one two three") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events][:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 2
    assert "".join(deltas) == final.output_text == "You said: one two three"
    [shown], [kept] = final.output, client.responses.retrieve(final.id).output
    assert shown.type == kept.type == "message"
    assert shown.id == kept.id


def test_a_stream_shows_tools(client: openai.OpenAI) -> None:
    with client.responses.stream(model="tools", input='/echo {"text": "hi"}') as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds.index("response.mcp_call.in_progress") < kinds.index("response.mcp_call.completed")
    assert kinds[-1] == "response.completed"
    assert final.output_text == "echo: hi"


def test_background_then_stream_from_a_number(client: openai.OpenAI) -> None:
    made = client.responses.create(model="slow", input=SLOW, background=True, stream=True)
    seen = []
    for event in made:
        seen.append(event)
        if event.type == "response.output_text.delta":
            break
    made.close()
    first = seen[0]
    assert first.type == "response.created"
    assert seen[1].type == "response.queued"
    rest = client.responses.retrieve(
        first.response.id, stream=True, starting_after=seen[-1].sequence_number
    )
    events = [*seen, *rest]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == f"You said: {SLOW}"
    # Read again after the end, from the beginning: exactly the same events.
    again = list(client.responses.retrieve(first.response.id, stream=True))
    assert [e.sequence_number for e in again] == [e.sequence_number for e in events]
    assert [e.type for e in again] == [e.type for e in events]


def test_background_is_polled(client: openai.OpenAI, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    made = client.responses.create(model="tools", input=gate.message, background=True)
    assert made.status in ("queued", "in_progress")
    assert made.output == []
    gate.open()
    deadline = time.monotonic() + 90
    while made.status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        made = client.responses.retrieve(made.id)
    assert (made.status, made.output_text) == ("completed", "hold: released")
    # The stream of a response that was not requested as a stream has its text too.
    with client.responses.stream(response_id=made.id) as stream:
        assert stream.get_final_response().output_text == made.output_text


def test_cancel(client: openai.OpenAI) -> None:
    made = client.responses.create(model="tools", input='/nap {"seconds": 600}', background=True)
    cancelled = client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert client.responses.cancel(made.id).status == "cancelled"
    events = list(client.responses.retrieve(made.id, stream=True))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.status == "cancelled"
    plain = client.responses.create(model="tools", input="hi")
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.cancel(plain.id)
    assert caught.value.code == "not_background"


def test_delete(client: openai.OpenAI) -> None:
    made = client.responses.create(model="tools", input="hi")
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.retrieve(made.id)
    assert caught.value.code == "response_not_found"
    running = client.responses.create(model="tools", input='/nap {"seconds": 600}', background=True)
    with pytest.raises(openai.ConflictError):
        client.responses.delete(running.id)
    client.responses.cancel(running.id)


def test_previous_response_id_continues_and_forks(client: openai.OpenAI) -> None:
    first = client.responses.create(model="tools", input="red")
    second = client.responses.create(model="tools", input="blue", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    asked = "What did I say?"
    third = client.responses.create(model="tools", input=asked, previous_response_id=second.id)
    assert third.output_text == "You said 2 things: red | blue"
    fork = client.responses.create(model="tools", input=asked, previous_response_id=first.id)
    assert fork.output_text == "You said 1 thing: red"
    behind = client.responses.create(model="tools", input=asked, previous_response_id=fork.id)
    assert behind.output_text == f"You said 2 things: red | {asked}"


def test_a_response_that_failed(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="OPENAI_API_KEY is not set") as failed:
        client.responses.create(model="keyless", input="hi")
    assert failed.value.code == "provider_misconfigured"
    assert failed.value.response.headers["x-should-retry"] == "false"
    made = client.responses.create(model="keyless", input="hi", background=True)
    with client.responses.stream(response_id=made.id) as stream:
        stream.until_done()
    made = client.responses.retrieve(made.id)
    assert made.status == "failed"
    assert made.error is not None
    assert made.error.code == "server_error"
    assert "OPENAI_API_KEY is not set" in made.error.message
    events = list(client.responses.create(model="keyless", input="hi", stream=True))
    assert events[-1].type == "response.failed"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="tools", input="hi", previous_response_id=made.id)
    assert caught.value.code == "previous_response_not_usable"


def test_input_items_with_a_past(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="tools",
        input=[
            {"role": "user", "content": "red"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "noted"}]},  # type: ignore[list-item, misc]
            {"role": "user", "content": [{"type": "input_text", "text": "What did I say?"}]},
        ],
    )
    assert made.output_text == "You said 1 thing: red"
    items = client.responses.input_items.list(made.id, order="asc", limit=2)
    assert [item.role for item in items if item.type == "message"] == ["user", "assistant", "user"]


def test_the_same_key_is_the_same_response(client: openai.OpenAI) -> None:
    headers = {"Idempotency-Key": "order-7"}
    made = [
        client.responses.create(model="tools", input="hi", extra_headers=headers) for _ in range(2)
    ]
    assert made[0] == made[1]
    streams = [
        list(client.responses.create(model="slow", input=SLOW, stream=True, extra_headers=headers))
        for headers in ({"Idempotency-Key": "order-8"},) * 2
    ]
    assert [e.type for e in streams[0]] == [e.type for e in streams[1]]


def test_signs_of_life_do_not_disturb_the_client(
    client: openai.OpenAI, served: Served, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    # The stack's gateway sends one every 0.3 seconds.
    events = list(
        client.responses.create(model="tools", input='/nap {"seconds": 1.2}', stream=True)
    )
    assert events[-1].type == "response.completed"
    with (
        served.http() as http,
        http.stream(
            "POST",
            "/v1/responses",
            json={"model": "tools", "input": gate.message, "stream": True},
        ) as answer,
    ):
        lines = []
        for line in answer.iter_lines():
            lines.append(line)
            if line == ": ping":
                gate.open()
    assert not [line for line in lines if line.startswith("id:")]


def test_a_branch_has_the_images_of_what_it_continues(
    served: Served, client: openai.OpenAI
) -> None:
    data = f"an image of its own: {uuid.uuid4()}".encode()
    image = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    first = client.responses.create(
        model="tools",
        input=[
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": image, "detail": "auto"}],
            }
        ],
    )
    for _ in range(2):
        client.responses.create(model="tools", input="go on", previous_response_id=first.id)
    # The second request found the conversation continued, and got a copy.
    store = redis.Redis.from_url(served.stack.redis_url)
    name = hashlib.sha256(data).hexdigest()
    kept = [key for key in store.scan_iter("agentapi:*:blobs") if store.hget(key, name) == data]
    assert len(kept) == 2


@pytest.mark.parametrize("data", ["é", "a", "====", ""])
def test_bytes_that_cannot_be_read(client: openai.OpenAI, data: str) -> None:
    url = f"data:image/png;base64,{data}"
    with pytest.raises(openai.BadRequestError, match="is not a data URL"):
        client.responses.create(
            model="tools",
            input=[
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": url, "detail": "auto"}],
                }
            ],
        )


def test_a_text_file_with_a_charset(client: openai.OpenAI) -> None:
    encoded = base64.b64encode(b"text").decode()
    response = client.responses.create(
        model="tools",
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Read"},
                    {
                        "type": "input_file",
                        "file_data": f"data:text/plain;charset=utf-8;base64,{encoded}",
                        "filename": "a.txt",
                    },
                ],
            }
        ],
    )
    assert response.output_text == "You said: Read [file a.txt]"


def test_images_and_files_of_the_user(client: openai.OpenAI) -> None:
    picture = "data:image/png;base64,iVBORw0KGgo="
    paper = "data:application/pdf;base64,JVBERg=="
    response = client.responses.create(
        model="tools",
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": picture, "detail": "auto"},
                    {"type": "input_file", "file_data": paper, "filename": "bill.pdf"},
                ],
            }
        ],
    )
    assert response.output_text == "You said: Look [image image/png] [file bill.pdf]"
    chat = client.chat.completions.create(
        model="tools",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": picture}},
                ],
            }
        ],
    )
    assert chat.choices[0].message.content == "You said: Look [image image/png]"
    with pytest.raises(openai.BadRequestError, match="neither a data URL nor an http"):
        client.responses.create(
            model="tools",
            input=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "input_image",
                            "image_url": "file:///etc/passwd",
                            "detail": "auto",
                        }
                    ],
                }
            ],
        )
