"""What the gateway refuses, as the `openai` client's exceptions."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from tests.gateway.conftest import Served


def test_a_key_that_is_not_valid(served: Served) -> None:
    with served.openai("ak-nonsense") as client, pytest.raises(openai.AuthenticationError) as got:
        client.models.list()
    assert got.value.code == "invalid_api_key"
    assert got.value.request_id


def test_an_agent_that_is_not_there(client: openai.OpenAI) -> None:
    with pytest.raises(
        openai.NotFoundError, match="agent 'nobody' is not registered here"
    ) as caught:
        client.responses.create(model="nobody", input="hi")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"top_logprobs": 3}, "top_logprobs", "unsupported_parameter"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
        ({"store": False, "background": True}, "store", "mutually_exclusive_parameters"),
        ({"include": ["flavours"]}, "include", "invalid_value"),
        ({"flavour": "mint"}, "flavour", "unknown_parameter"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "unsupported_parameter"),
        ({"input": [{"role": "system", "content": "x"}]}, "input", "invalid_value"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input", "invalid_value"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].image_url",
            "invalid_value",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio", "data": "x"}]}]},
            "input[0].content[0].type",
            "unsupported_parameter",
        ),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id", None),
        ({"metadata": {"agentapi:gateway": "x"}}, "metadata", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_value"),
        ({"conversation": "c", "previous_response_id": "r"}, "previous_response_id", None),
        ({"input": "  "}, None, "invalid_message"),
    ],
)
def test_what_is_not_supported_is_named(
    client: openai.OpenAI, body: dict[str, Any], param: str | None, code: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="tools", input="hi", extra_body=body)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    if code is not None:
        assert caught.value.code == code


def test_values_that_change_nothing_are_taken(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="tools",
        input="hi",
        store=True,
        tools=[],
        tool_choice="auto",
        parallel_tool_calls=True,
        truncation="disabled",
        temperature=None,
        text={"format": {"type": "text"}},
    )
    assert made.status == "completed"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "critic", "content": "Be rude."}]}, "messages[0].role"),
        ({"n": 2}, "n"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"messages": [{"role": "user", "content": "x", "mood": "sad"}]}, "messages[0].mood"),
    ],
)
def test_what_chat_does_not_support_is_named(
    client: openai.OpenAI, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="tools", messages=[{"role": "user", "content": "hi"}], extra_body=body
        )
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")


def test_a_chat_whose_turn_fails(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="OPENAI_API_KEY is not set") as caught:
        client.chat.completions.create(
            model="keyless", messages=[{"role": "user", "content": "hi"}]
        )
    assert caught.value.code == "provider_misconfigured"
    assert caught.value.response.headers["x-should-retry"] == "false"
    stream = client.chat.completions.create(
        model="keyless", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    with pytest.raises(openai.APIError, match="OPENAI_API_KEY is not set"):
        list(stream)


def test_bodies_that_are_no_requests(http: httpx2.Client) -> None:
    for content, code in (
        (b"{", "invalid_json"),
        (b"[]", "invalid_value"),
        (b'"hi"', "invalid_value"),
        (b'{"model": "tools", "input": "\\ud800"}', "invalid_json"),
    ):
        answer = http.post(
            "/v1/responses", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400, content
        assert answer.json()["error"]["code"] == code
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    large = http.post("/v1/responses", json={"model": "tools", "input": "x" * 2_000_000})
    assert large.status_code == 413
    assert large.json()["error"]["code"] == "request_too_large"
    long = http.post("/v1/responses", json={"model": "tools", "input": "x" * 300_000})
    assert (long.status_code, long.json()["error"]["code"]) == (400, "invalid_message")
    unknown = http.get("/v1/nothing")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
    wrong = http.put("/v1/responses")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")


def test_every_answer_has_a_request_id(http: httpx2.Client, served: Served) -> None:
    for path in ("/healthz", "/v1/models", "/nothing"):
        assert http.get(path).headers["x-request-id"].startswith("req_")
    given = http.get("/healthz", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    forged = http.get("/healthz", headers={"x-request-id": "a b\tc"})
    assert forged.headers["x-request-id"].startswith("req_")
    gateway = served.stack.gateway
    assert gateway is not None
    assert "request_id=mine-1" in gateway.log.read_text()
