"""What requests decide, with the real `openai` client: as far as the agent lets them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.gateway.conftest import Served

IGNORED = "x-agentapi-ignored"
USER: Any = {"role": "user", "content": "hi"}


class Weather(BaseModel):
    city: str
    degrees: int


class Answer(BaseModel):
    answer: str


def asked(client: openai.OpenAI, model: str, **options: Any) -> tuple[dict[str, Any], Any]:
    """What the model was asked by a response, and the response with its headers."""
    raw = client.responses.with_raw_response.create(model=model, input="hi", **options)
    made = raw.parse()
    assert made.status == "completed", made
    return json.loads(made.output_text), raw


def test_instructions_go_behind_the_agents_own_prompt(client: openai.OpenAI) -> None:
    seen, raw = asked(client, "open", instructions="Answer in French.")
    assert seen["prompt"] == "You sell shoes.\n\nAnswer in French."
    assert IGNORED not in raw.headers
    made = raw.parse()
    assert made.instructions == "Answer in French."
    assert client.responses.retrieve(made.id).instructions == "Answer in French."
    # They hold for one turn.
    after = client.responses.create(model="open", input="hi", previous_response_id=made.id)
    assert json.loads(after.output_text)["prompt"] == "You sell shoes."


def test_messages_of_the_system_are_instructions(client: openai.OpenAI) -> None:
    items: Any = [
        {"role": "developer", "content": "Be brief."},
        USER,
        {"role": "system", "content": [{"type": "input_text", "text": "Be kind."}]},
        USER,
    ]
    seen, _ = asked(client, "open", instructions="Be true.", extra_body={"input": items})
    assert seen["prompt"] == "You sell shoes.\n\nBe true.\n\nBe brief.\n\nBe kind."
    chat = client.chat.completions.create(
        model="open",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "name": "Ada", "content": "hi"},
        ],
    )
    said = json.loads(chat.choices[0].message.content or "")
    assert said["prompt"] == "You sell shoes.\n\nBe brief.\n\nBe kind."


def test_an_agent_may_let_requests_replace_its_prompt(client: openai.OpenAI) -> None:
    seen, _ = asked(client, "replaced", instructions="You sell hats.")
    assert seen["prompt"] == "You sell hats."
    assert asked(client, "replaced")[0]["prompt"] == "You sell shoes."


def test_what_is_ignored_is_named(client: openai.OpenAI) -> None:
    seen, raw = asked(
        client,
        "deaf",
        instructions="You sell hats.",
        temperature=0.2,
        reasoning={"effort": "high"},
        service_tier="flex",
    )
    assert seen == {"prompt": "You sell shoes.", "sampling": {}, "output": None}
    assert sorted(raw.headers[IGNORED].split(", ")) == [
        "instructions",
        "reasoning.effort",
        "service_tier",
        "temperature",
    ]
    made = raw.parse()
    assert (made.instructions, made.temperature) == (None, None)
    assert made.reasoning.effort is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"instructions": "x"}, "instructions"),
        ({"input": [{"role": "system", "content": "x"}, USER]}, "input[0]"),
        ({"temperature": 0.2}, "temperature"),
        ({"max_output_tokens": 9}, "max_output_tokens"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"store": False}, "store"),
    ],
)
def test_what_an_agent_refuses_is_named(
    client: openai.OpenAI, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError, match="agent 'closed' decides it") as caught:
        client.responses.create(model="closed", input="hi", extra_body=body)
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")


def test_sampling_reaches_the_model_as_far_as_its_provider_supports_it(
    client: openai.OpenAI,
) -> None:
    seen, raw = asked(client, "open", temperature=0.2, top_p=0.5, max_output_tokens=500)
    assert seen["sampling"] == {"temperature": 0.2, "max_output_tokens": 500}
    assert raw.headers[IGNORED] == "top_p"
    made = raw.parse()
    assert (made.temperature, made.top_p, made.max_output_tokens) == (0.2, None, 500)
    chat = client.chat.completions.with_raw_response.create(
        model="open",
        messages=[USER],
        temperature=0,
        max_tokens=400,
        stop="END",
        seed=7,
        presence_penalty=0.5,
        reasoning_effort="low",
    )
    sampling = json.loads(chat.parse().choices[0].message.content or "")["sampling"]
    assert sampling == {"temperature": 0, "max_output_tokens": 400, "stop": ["END"]}
    assert chat.headers[IGNORED] == "presence_penalty, reasoning_effort, seed"


def test_values_that_change_nothing_decide_nothing(client: openai.OpenAI) -> None:
    made = client.responses.with_raw_response.create(
        model="closed",
        input="hi",
        store=True,
        tools=[],
        tool_choice="none",
        parallel_tool_calls=False,
        temperature=1,
        top_p=1,
        reasoning={},
        text={},
        include=["reasoning.encrypted_content", "message.output_text.logprobs"],
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        service_tier="auto",
        truncation="disabled",
        extra_body={"prompt_cache_options": {"mode": "implicit"}, "context_management": []},
    )
    assert json.loads(made.parse().output_text)["sampling"] == {}
    assert IGNORED not in made.headers
    chat = client.chat.completions.with_raw_response.create(
        model="closed",
        messages=[{"role": "user", "content": "hi", "name": "Ada"}],
        temperature=1,
        top_p=1,
        presence_penalty=0,
        frequency_penalty=0,
        stop=[],
        logit_bias={},
        n=1,
        logprobs=False,
        tool_choice="none",
        parallel_tool_calls=True,
        modalities=["text"],
        response_format={"type": "text"},
        prompt_cache_key="k",
        service_tier="default",
        extra_body={"functions": []},
    )
    assert chat.parse().choices[0].finish_reason == "stop"
    assert IGNORED not in chat.headers
    with client.responses.create(
        model="open", input="hi", stream=True, stream_options={"include_obfuscation": True}
    ) as stream:
        assert list(stream)[-1].type == "response.completed"


def test_an_agent_serves_its_own_type(client: openai.OpenAI) -> None:
    said = '{"city": "Oslo", "degrees": 3}'
    parsed = client.responses.parse(model="weather", input=said, text_format=Weather)
    assert parsed.output_parsed == Weather(city="Oslo", degrees=3)
    chat = client.chat.completions.parse(
        model="weather", messages=[{"role": "user", "content": said}], response_format=Weather
    )
    assert chat.choices[0].message.parsed == Weather(city="Oslo", degrees=3)
    loose = client.chat.completions.create(
        model="weather",
        messages=[{"role": "user", "content": said}],
        response_format={"type": "json_object"},
    )
    assert json.loads(loose.choices[0].message.content or "") == json.loads(said)
    # Another type cannot be had from it, and the reply does not pretend to be one.
    with pytest.raises(openai.APIStatusError, match="answer"):
        client.chat.completions.parse(
            model="weather", messages=[{"role": "user", "content": said}], response_format=Answer
        )


def test_a_requested_schema_is_asked_of_the_model_and_checked(client: openai.OpenAI) -> None:
    given: Any = [{"role": "user", "content": '{"answer": "yes"}'}]
    parsed = client.responses.parse(model="tools", input=given, text_format=Answer)
    assert parsed.output_parsed == Answer(answer="yes")
    form: Any = client.responses.retrieve(parsed.id).text
    assert (form.format.type, form.format.name) == ("json_schema", "Answer")
    # The offline model repeats the object of the message, which is not what is asked for; shown
    # what is wrong, it replies again.
    wrong = '{"answer": ["private words"]}'
    schema: Any = {"type": "json_schema", "name": "Answer", "schema": Answer.model_json_schema()}
    mended = client.responses.create(model="tools", input=wrong, text={"format": schema})
    assert isinstance(Answer.model_validate_json(mended.output_text).answer, str)
    with pytest.raises(openai.InternalServerError) as failed:
        client.responses.create(model="strict", input=wrong, text={"format": schema})
    assert (failed.value.status_code, failed.value.code) == (502, "invalid_output")
    assert "answer: the value is not of type" in failed.value.message
    assert "private" not in failed.value.message
    with client.chat.completions.stream(
        model="tools", messages=given, response_format=Answer
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Answer(answer="yes")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "flavour"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "#/$defs/nowhere"},
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                "d40": False,
                **{f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)},
            },
        },
        {"type": "object", "description": "x" * 70_000},
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(
    client: openai.OpenAI, schema: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError, match="schema"):
        client.responses.create(
            model="tools",
            input="hi",
            text={"format": {"type": "json_schema", "name": "x", "schema": schema}},
        )


@pytest.mark.parametrize(
    ("body", "param", "text"),
    [
        ({"n": 2}, "n", "one answer"),
        ({"logprobs": True}, "logprobs", "no log probabilities"),
        ({"modalities": ["audio"]}, "modalities", "reply in text"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ],
)
def test_what_would_make_the_answer_a_lie_is_refused(
    client: openai.OpenAI, body: dict[str, Any], param: str, text: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=text) as caught:
        client.chat.completions.create(model="tools", messages=[USER], extra_body=body)
    assert caught.value.param == param


def test_a_key_with_another_request_is_refused(client: openai.OpenAI) -> None:
    headers = {"idempotency-key": "policy-key"}
    first = client.responses.create(
        model="open", input="hi", instructions="A.", extra_headers=headers
    )
    again = client.responses.create(
        model="open", input="hi", instructions="A.", extra_headers=headers
    )
    assert again.id == first.id
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.responses.create(model="open", input="hi", instructions="B.", extra_headers=headers)
    assert caught.value.code == "idempotency_key_reused"
    with pytest.raises(openai.UnprocessableEntityError):
        client.responses.create(model="open", input="ho", extra_headers=headers)


def test_stored_chat_completions(served: Served) -> None:
    def make(client: openai.OpenAI, text: str, model: str = "tools", **more: Any) -> str:
        messages: Any = [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "second"},
            {"role": "user", "content": text},
        ]
        return str(client.chat.completions.create(model=model, messages=messages, **more).id)

    with served.openai(served.evil) as client, served.openai() as other:
        ids = [
            make(client, f"number {n}", store=True, metadata={"odd": str(n % 2)}) for n in range(5)
        ]
        open_id = make(client, "hi", model="open", store=True)
        unlisted = make(client, "hi")
        make(client, "hi", store=False)
        listed = [chat.id for chat in client.chat.completions.list(limit=2)]
        assert listed == [*ids, open_id]
        newest = client.chat.completions.list(limit=3, order="desc")
        assert [chat.id for chat in newest.data] == [open_id, *ids[:2:-1]]
        odd = client.chat.completions.list(metadata={"odd": "1"})
        assert [chat.id for chat in odd.data] == ids[1::2]
        assert [c.id for c in client.chat.completions.list(model="open").data] == [open_id]
        chat = client.chat.completions.retrieve(ids[0])
        assert chat.choices[0].message.content == "You said: number 0"
        assert chat.to_dict()["metadata"] == {"odd": "0"}
        for hidden in (unlisted, "chatcmpl-none"):
            with pytest.raises(openai.NotFoundError, match="no stored chat completion"):
                client.chat.completions.retrieve(hidden)
        with pytest.raises(openai.NotFoundError):
            other.chat.completions.retrieve(ids[0])
        assert [chat.id for chat in other.chat.completions.list() if chat.id in ids] == []
        changed = client.chat.completions.update(ids[0], metadata={"even": "yes"})
        assert changed.to_dict() == {**chat.to_dict(), "metadata": {"even": "yes"}}
        assert client.chat.completions.retrieve(ids[0]).to_dict() == changed.to_dict()
        even = client.chat.completions.list(metadata={"even": "yes"})
        assert [chat.id for chat in even.data] == [ids[0]]
        bare = client.chat.completions.update(ids[0], metadata=None).to_dict()
        assert bare["metadata"] == {}
        with pytest.raises(openai.BadRequestError, match="'agentapi:gateway' is reserved"):
            client.chat.completions.update(ids[0], metadata={"agentapi:gateway": "x"})
        with pytest.raises(openai.NotFoundError, match="no stored chat completion"):
            client.chat.completions.update(unlisted, metadata={})
        with pytest.raises(openai.NotFoundError):
            other.chat.completions.update(ids[0], metadata={})
        assert client.chat.completions.delete(ids[0]).deleted
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.retrieve(ids[0])
        assert [chat.id for chat in client.chat.completions.list()] == [*ids[1:], open_id]
        # OpenAI's own type knows messages of the assistant only, so this client is not strict.
    with served.openai(served.evil, _strict_response_validation=False) as loose:
        said = loose.chat.completions.messages.list(ids[1], limit=2)
        assert [message.content for message in said] == ["first", "second", "number 1"]


def test_streams_name_what_is_ignored(client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(
        model="deaf", input="hi", stream=True, instructions="x"
    )
    assert raw.headers[IGNORED] == "instructions"
    assert list(raw.parse())[-1].type == "response.completed"
    chunks = client.chat.completions.with_raw_response.create(
        model="deaf", messages=[USER], stream=True, temperature=0.1
    )
    assert chunks.headers[IGNORED] == "temperature"
    assert chunks.headers["x-response-id"].startswith("resp_")
    assert [chunk.choices[0].finish_reason for chunk in chunks.parse()][-1] == "stop"
