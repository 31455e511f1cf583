"""Replies that were cut off, over every API, with the real client."""

from __future__ import annotations

import uuid

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.gateway.test_native import ended, events_of

SAID = "one two three four five six"
WHOLE = f"You said: {SAID}"
CUT = WHOLE[:16]
"""The agent `terse` has 4 tokens, of 4 characters each."""

MESSAGES: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": SAID}]


def test_a_response_that_was_cut_off_is_incomplete(client: openai.OpenAI) -> None:
    made = client.responses.create(model="terse", input=SAID)
    assert (made.status, made.output_text) == ("incomplete", CUT)
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"
    assert made.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert client.responses.retrieve(made.id) == made
    events = list(client.responses.create(model="terse", input=SAID, stream=True))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == CUT
    # The conversation goes on.
    recalled = client.responses.create(
        model="terse", input="and now?", previous_response_id=made.id
    )
    assert recalled.output_text == "You said: and now?"[:16]


def test_a_chat_that_was_cut_off_says_so(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(model="terse", messages=MESSAGES)
    assert made.choices[0].finish_reason == "length"
    assert made.choices[0].message.content == CUT
    chunks = list(client.chat.completions.create(model="terse", messages=MESSAGES, stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == CUT


def test_a_turn_that_was_cut_off_says_so(http: httpx2.Client) -> None:
    path = f"/conversations/cut:{uuid.uuid4().hex}"
    made = http.post(f"{path}/turns", json={"agent": "terse", "message": SAID}).json()
    turn = ended(http, made["turn_id"])
    assert (turn["status"], turn["finish_reason"]) == ("completed", "length")
    assert events_of(http, made["turn_id"])[-1]["data"]["finish_reason"] == "length"
    assert http.get(f"{path}/messages").json()["messages"][-1]["finish_reason"] == "length"
    whole = http.post(f"{path}/turns", json={"agent": "tools", "message": "hi"}).json()
    assert ended(http, whole["turn_id"])["finish_reason"] == "stop"


def test_a_continued_reply_has_no_seam(client: openai.OpenAI) -> None:
    made = client.responses.create(model="thorough", input=SAID)
    assert (made.status, made.output_text) == ("completed", WHOLE)
    assert len(made.output) == 1
    with client.responses.stream(model="thorough", input=SAID) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == WHOLE
    added = [event for event in events if event.type == "response.output_item.added"]
    assert len(added) == 1
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == WHOLE
    chunks = list(client.chat.completions.create(model="thorough", messages=MESSAGES, stream=True))
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == WHOLE


def test_an_agent_that_insists_on_whole_replies(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="cut off") as caught:
        client.responses.create(model="whole", input=SAID)
    assert (caught.value.status_code, caught.value.code) == (502, "incomplete_reply")
