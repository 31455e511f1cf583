"""The real google-genai SDK against a local server that speaks generateContent."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
    dumps,
    loads,
)
from agentapi.errors import ProviderMisconfigured, ProviderRejected, ProviderUnavailable
from agentapi.providers import FinishReason, ModelRequest, ModelResponse, TextDelta, ToolSpec
from agentapi.providers.base import OutputSpec
from agentapi.providers.gemini.client import GeminiProvider
from tests.fakes import gemini
from tests.fakes.attachments import PNG, with_attachments
from tests.fakes.server import WireServer, hang_up, serving, silent, text

KEY = "AIza-very-secret"
REQUEST = ModelRequest(
    model="gemini-test",
    system_prompt="Be brief.",
    messages=[UserMessage(content="hi")],
    tools=[ToolSpec(name="look", description="Look.", parameters={"type": "object"})],
    options={"temperature": 0},
)


@pytest.fixture
async def server() -> AsyncIterator[WireServer]:
    async with serving() as running:
        yield running


@pytest.fixture
async def provider(server: WireServer) -> AsyncIterator[GeminiProvider]:
    made = GeminiProvider(api_key=KEY, base_url=server.url, timeout=60)
    yield made
    await made.aclose()


async def collect(provider: GeminiProvider) -> tuple[list[str], ModelResponse]:
    parts = [part async for part in provider.stream(REQUEST)]
    assert isinstance(parts[-1], ModelResponse)
    return [part.text for part in parts if isinstance(part, TextDelta)], parts[-1]


async def test_plain_answer_and_the_request_on_the_wire(
    server: WireServer, provider: GeminiProvider
) -> None:
    server.will(gemini.reply({"text": "hello"}))
    response = await provider.complete(REQUEST)
    assert response.message.content == "hello"
    assert response.usage == Usage(input_tokens=12, output_tokens=7, cached_tokens=2)
    assert response.finish is FinishReason.STOP
    assert server.paths == ["/v1/models/gemini-test:generateContent"]
    assert server.headers[0]["x-goog-api-key"] == KEY
    sent = server.requests[0]
    assert sent["contents"] == [{"role": "user", "parts": [{"text": "hi"}]}]
    assert sent["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert sent["generationConfig"]["temperature"] == 0
    [declaration] = sent["tools"][0]["functionDeclarations"]
    assert declaration == {
        "name": "look",
        "description": "Look.",
        "parametersJsonSchema": {"type": "object"},
    }


async def test_tool_call_keeps_its_signature_and_id(
    server: WireServer, provider: GeminiProvider
) -> None:
    server.will(
        gemini.reply(
            {"text": "thinking", "thought": True},
            gemini.call("look", {"x": 1}, id="g1", thoughtSignature="c2lnbmF0dXJl"),
            gemini.call("look", {"x": 2}, id="g2"),
        ),
        gemini.reply({"text": "done"}),
    )
    response = await provider.complete(REQUEST)
    assert response.finish is FinishReason.TOOL_CALLS
    assert response.message.content == ""
    assert [call.id for call in response.message.tool_calls] == ["g1", "g2"]
    # Through the store and back to the provider, as a second worker would do it.
    stored = loads(dumps(response.message))
    await provider.complete(
        ModelRequest(
            model="gemini-test",
            system_prompt="",
            messages=[
                UserMessage(content="hi"),
                stored,
                ToolMessage(call_id="g1", name="look", content="one"),
                ToolMessage(call_id="g2", name="look", content="bad", is_error=True),
            ],
        )
    )
    _, model, results = server.requests[1]["contents"]
    assert model["role"] == "model"
    assert model["parts"][1]["thoughtSignature"] == "c2lnbmF0dXJl"
    assert model["parts"][1]["functionCall"] == {"id": "g1", "name": "look", "args": {"x": 1}}
    assert results == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "g1", "name": "look", "response": {"output": "one"}}},
            {"functionResponse": {"id": "g2", "name": "look", "response": {"error": "bad"}}},
        ],
    }


async def test_a_model_that_gives_no_ids_gets_none_back(
    server: WireServer, provider: GeminiProvider
) -> None:
    server.will(gemini.reply(gemini.call("look", {})), gemini.reply({"text": "done"}))
    response = await provider.complete(REQUEST)
    [call] = response.message.tool_calls
    assert call.id
    result = ToolMessage(call_id=call.id, name="look", content="seen")
    messages: list[Message] = [UserMessage(content="hi"), response.message, result]
    await provider.complete(ModelRequest(model="m", system_prompt="", messages=messages))
    _, model, results = server.requests[1]["contents"]
    assert "id" not in model["parts"][0]["functionCall"]
    assert "id" not in results["parts"][0]["functionResponse"]


async def test_calls_of_another_provider_carry_the_documented_signature(
    server: WireServer, provider: GeminiProvider
) -> None:
    server.will(gemini.reply({"text": "done"}))
    calls = (ToolCall(id="call_1", name="look", arguments={"x": 1}),)
    await provider.complete(
        ModelRequest(
            model="m",
            system_prompt="",
            messages=[
                UserMessage(content="hi"),
                AssistantMessage(content="wait", tool_calls=calls),
                ToolMessage(call_id="call_1", name="look", content="seen"),
            ],
        )
    )
    assert server.requests[0]["contents"][1]["parts"] == [
        {"text": "wait"},
        {
            "functionCall": {"id": "call_1", "name": "look", "args": {"x": 1}},
            "thoughtSignature": "skip_thought_signature_validator",
        },
    ]


async def test_streamed(server: WireServer, provider: GeminiProvider) -> None:
    server.will(
        gemini.streamed(
            gemini.body({"text": "hel"}, finish=None),
            gemini.body({"text": "lo"}, finish=None),
            gemini.body(gemini.call("look", {"x": 1}, id="g1")),
        )
    )
    deltas, response = await collect(provider)
    assert deltas == ["hel", "lo"]
    assert response.message.content == "hello"
    assert response.message.tool_calls == (ToolCall(id="g1", name="look", arguments={"x": 1}),)
    assert server.paths == ["/v1/models/gemini-test:streamGenerateContent?alt=sse"]


async def test_rate_limit_by_header_and_by_body(
    server: WireServer, provider: GeminiProvider
) -> None:
    info = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17.5s"}]
    server.will(
        gemini.error(429, "slow down", "RESOURCE_EXHAUSTED", retry_after="7"),
        gemini.error(429, "slow down", "RESOURCE_EXHAUSTED", info),
    )
    for expected in (7, 17.5):
        with pytest.raises(ProviderUnavailable, match="slow down") as caught:
            await provider.complete(REQUEST)
        assert caught.value.retry_after == expected
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", ProviderMisconfigured),
        ("GenerateRequestsPerMinutePerProjectPerModel", ProviderUnavailable),
        (None, ProviderUnavailable),
    ],
)
async def test_a_quota_that_comes_back_tomorrow_is_not_waited_for(
    server: WireServer, provider: GeminiProvider, quota: str | None, expected: type[Exception]
) -> None:
    details = [
        {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            "violations": [{"quotaId": quota}],
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "26s"},
    ]
    server.will(gemini.error(429, "exceeded", "RESOURCE_EXHAUSTED", details))
    with pytest.raises(expected, match="exceeded"):
        await provider.complete(REQUEST)


@pytest.mark.parametrize(
    ("code", "kind", "message", "expected"),
    [
        (400, "INVALID_ARGUMENT", f"no {KEY}", ProviderRejected),
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass", ProviderMisconfigured),
        (403, "PERMISSION_DENIED", f"no {KEY}", ProviderMisconfigured),
        (500, "INTERNAL", f"no {KEY}", ProviderUnavailable),
        (503, "UNAVAILABLE", "overloaded", ProviderUnavailable),
    ],
)
async def test_statuses_by_what_the_caller_must_do(
    server: WireServer,
    provider: GeminiProvider,
    code: int,
    kind: str,
    message: str,
    expected: type[Exception],
) -> None:
    server.will(gemini.error(code, message, kind), gemini.error(code, message, kind))
    with pytest.raises(expected, match=str(code)) as caught:
        await provider.complete(REQUEST)
    assert KEY not in str(caught.value)
    with pytest.raises(expected):
        await collect(provider)
    assert len(server.requests) == 2


async def test_malformed_and_truncated_answers(
    server: WireServer, provider: GeminiProvider
) -> None:
    server.will(
        text("{not json"),
        text("{}"),
        gemini.reply({"text": "hel"}, finish=None),
        gemini.reply(finish="MALFORMED_FUNCTION_CALL"),
        hang_up(),
    )
    for _ in range(5):
        with pytest.raises(ProviderUnavailable):
            await provider.complete(REQUEST)
    server.will(
        gemini.streamed(gemini.body({"text": "hel"}, finish=None)),
        gemini.streamed(gemini.body({"text": "hel"}, finish=None), cut=True),
        gemini.streamed({"error": {"code": 503, "message": "gone", "status": "UNAVAILABLE"}}),
    )
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            await collect(provider)


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "models/gemini-1.5-pro"])
async def test_a_schema_in_words_for_models_that_take_either_that_or_tools(
    server: WireServer, provider: GeminiProvider, model: str
) -> None:
    server.will(gemini.reply({"text": "{}"}), gemini.reply({"text": "{}"}))
    schema = {"type": "object", "properties": {"people": {"type": "integer"}}}
    output = OutputSpec(name="City", schema=schema)
    await provider.complete(replace(REQUEST, model=model, output=output))
    [sent] = server.requests
    assert sent["generationConfig"] == {"temperature": 0}
    [part] = sent["systemInstruction"]["parts"]
    assert part["text"].startswith("Be brief.\n\n")
    assert '"people":{"type":"integer"}' in part["text"]
    # Without tools they take the schema itself.
    await provider.complete(replace(REQUEST, model=model, output=output, tools=()))
    assert server.requests[-1]["generationConfig"]["responseJsonSchema"] == schema
    assert server.requests[-1]["systemInstruction"]["parts"] == [{"text": "Be brief."}]


async def test_blocked_prompt_is_rejected(server: WireServer, provider: GeminiProvider) -> None:
    server.will(text('{"promptFeedback": {"blockReason": "SAFETY"}}'))
    with pytest.raises(ProviderRejected, match="SAFETY"):
        await provider.complete(REQUEST)


def test_missing_key_names_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    with pytest.raises(ProviderMisconfigured, match="GEMINI_API_KEY or GOOGLE_API_KEY is not set"):
        GeminiProvider.from_environment()


async def test_a_schema_on_the_wire(server: WireServer, provider: GeminiProvider) -> None:
    server.will(gemini.reply({"text": "{}"}))
    schema = {"type": "object", "properties": {}}
    output = OutputSpec(name="Empty", schema=schema)
    await provider.complete(replace(REQUEST, output=output))
    assert server.requests[-1]["generationConfig"] == {
        "temperature": 0,
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }


async def test_images_and_files_on_the_wire(server: WireServer, provider: GeminiProvider) -> None:
    server.will(gemini.reply({"text": "A cat."}))
    await provider.complete(with_attachments(REQUEST))
    encoded = base64.b64encode(PNG).decode()
    assert server.requests[-1]["contents"][-1]["parts"] == [
        {"text": "Look"},
        {"inlineData": {"mimeType": "image/png", "data": encoded}},
        {"fileData": {"fileUri": "https://example.com/a.jpg"}},
        {"inlineData": {"mimeType": "application/pdf", "data": encoded}},
    ]


async def test_a_server_that_falls_silent(server: WireServer) -> None:
    provider = GeminiProvider(api_key=KEY, base_url=server.url, timeout=0.3)
    first = json.dumps(gemini.body({"text": "hel"}, finish=None))
    server.will(silent(), silent(f"data: {first}\r\n\r\n"))
    with pytest.raises(ProviderUnavailable, match=r"did not answer within 0\.3 s"):
        await provider.complete(REQUEST)
    with pytest.raises(ProviderUnavailable, match=r"did not answer within 0\.3 s"):
        await collect(provider)
    await provider.aclose()


async def test_what_the_sdk_cannot_carry(server: WireServer, provider: GeminiProvider) -> None:
    deep = "".join(['{"a":'] * 300) + "1" + "}" * 300
    nested = json.dumps(gemini.body(gemini.call("look", {"x": "DEEP"}))).replace('"DEEP"', deep)
    nameless = json.dumps(gemini.body({"functionCall": {"args": {}}}))
    for body in (nested, nameless, "null", "[]"):
        server.will(text(body))
        with pytest.raises(ProviderUnavailable):
            await provider.complete(REQUEST)


async def test_values_that_the_sdk_does_not_know_are_not_shown(
    server: WireServer, provider: GeminiProvider
) -> None:
    server.will(gemini.reply({"text": "hello"}, {}, finish="A_NEW\nREASON"))
    response = await provider.complete(REQUEST)
    assert response.message.content == "hello"
    # Gemini takes no empty part back.
    assert response.message.provider_data == {"gemini": {"parts": [{"text": "hello"}]}}


@pytest.mark.parametrize(
    ("given", "finish"),
    [
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("MODEL_ARMOR", FinishReason.CONTENT_FILTER),
    ],
)
async def test_why_the_model_stopped(
    server: WireServer, provider: GeminiProvider, given: str, finish: FinishReason
) -> None:
    server.will(
        gemini.reply({"text": "hel"}, finish=given),
        gemini.streamed(gemini.body({"text": "hel"}, finish=given)),
        gemini.reply(gemini.call("look", {}), finish=given),
    )
    assert (await provider.complete(REQUEST)).finish is finish
    pieces, response = await collect(provider)
    assert (pieces, response.finish) == (["hel"], finish)
    calling = (await provider.complete(REQUEST)).finish
    assert calling is (FinishReason.TOOL_CALLS if finish is FinishReason.STOP else finish)
