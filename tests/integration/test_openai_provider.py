"""The real openai SDK against a local server that speaks Chat Completions."""

from __future__ import annotations

import base64
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
)
from agentapi.decoding.plain import clean_text
from agentapi.errors import (
    LONGEST_WAIT,
    ProviderMisconfigured,
    ProviderRejected,
    ProviderUnavailable,
)
from agentapi.providers import FinishReason, ModelRequest, ModelResponse, TextDelta, ToolSpec
from agentapi.providers.base import OutputSpec
from agentapi.providers.openai.client import OpenAIProvider
from agentapi.providers.openai.openrouter import openrouter_from_environment
from tests.fakes import chat
from tests.fakes.attachments import PNG, with_attachments
from tests.fakes.server import WireServer, hang_up, serving, sse, status, text

KEY = "sk-very-secret"
REQUEST = ModelRequest(
    model="m",
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
async def provider(server: WireServer) -> AsyncIterator[OpenAIProvider]:
    made = OpenAIProvider(api_key=KEY, base_url=f"{server.url}/v1", timeout=60)
    yield made
    await made.aclose()


async def collect(provider: OpenAIProvider) -> tuple[list[str], ModelResponse]:
    parts = [part async for part in provider.stream(REQUEST)]
    assert isinstance(parts[-1], ModelResponse)
    return [part.text for part in parts if isinstance(part, TextDelta)], parts[-1]


async def test_plain_answer_and_the_request_on_the_wire(
    server: WireServer, provider: OpenAIProvider
) -> None:
    server.will(chat.reply("hello"))
    response = await provider.complete(REQUEST)
    assert response.message == AssistantMessage(content="hello")
    assert response.usage == Usage(input_tokens=12, output_tokens=5, cached_tokens=4)
    assert response.finish is FinishReason.STOP
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.requests[0] == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Look.",
                    "parameters": {"type": "object"},
                },
            }
        ],
        "temperature": 0,
    }


async def test_tool_calls(server: WireServer, provider: OpenAIProvider) -> None:
    server.will(
        chat.reply(None, chat.call("a", "look", '{"x": 1}'), chat.call("b", "look", "nonsense"))
    )
    response = await provider.complete(REQUEST)
    assert response.finish is FinishReason.TOOL_CALLS
    assert response.message.tool_calls == (
        ToolCall(id="a", name="look", arguments={"x": 1}),
        ToolCall(id="b", name="look", arguments={}, malformed="nonsense"),
    )


async def test_streamed_text(server: WireServer, provider: OpenAIProvider) -> None:
    server.will(chat.streamed("hel", "lo"))
    deltas, response = await collect(provider)
    assert deltas == ["hel", "lo"]
    assert response.message.content == "hello"
    assert response.usage == Usage(input_tokens=12, output_tokens=5, cached_tokens=4)
    assert server.requests[0]["stream_options"] == {"include_usage": True}


async def test_streamed_tool_call_in_fragments(
    server: WireServer, provider: OpenAIProvider
) -> None:
    server.will(chat.streamed_call("a", "look", '{"x"', ": 1}"))
    _, response = await collect(provider)
    assert response.message.tool_calls == (ToolCall(id="a", name="look", arguments={"x": 1}),)
    assert response.finish is FinishReason.TOOL_CALLS


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after_ms": "7000"}, 7),
        ({"retry_after": "-7"}, 0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after_ms": "inf"}, None),
        ({"retry_after": "1e300"}, LONGEST_WAIT),
    ],
)
async def test_rate_limit_says_when_to_come_back(
    server: WireServer, provider: OpenAIProvider, header: dict[str, str], expected: float | None
) -> None:
    server.will(chat.error(429, "slow down", **header))
    with pytest.raises(ProviderUnavailable, match=r"429.*slow down") as caught:
        await provider.complete(REQUEST)
    assert caught.value.retry_after == expected
    assert len(server.requests) == 1


async def test_exhausted_quota_is_not_retried(server: WireServer, provider: OpenAIProvider) -> None:
    server.will(chat.error(429, "pay first", kind="insufficient_quota"))
    with pytest.raises(ProviderMisconfigured, match="pay first"):
        await provider.complete(REQUEST)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (400, ProviderRejected),
        (401, ProviderMisconfigured),
        (404, ProviderMisconfigured),
        (500, ProviderUnavailable),
        (503, ProviderUnavailable),
    ],
)
async def test_statuses_by_what_the_caller_must_do(
    server: WireServer, provider: OpenAIProvider, code: int, expected: type[Exception]
) -> None:
    server.will(chat.error(code, f"wrong key {KEY}"), chat.error(code, f"wrong key {KEY}"))
    with pytest.raises(expected) as caught:
        await provider.complete(REQUEST)
    assert KEY not in str(caught.value)
    assert str(code) in str(caught.value)
    with pytest.raises(expected):
        await collect(provider)


async def test_malformed_json(server: WireServer, provider: OpenAIProvider) -> None:
    server.will(text("{not json"), text('{"choices": []}'), sse("{not json"))
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            await provider.complete(REQUEST)
    with pytest.raises(ProviderUnavailable):
        await collect(provider)


async def test_truncated_streams(server: WireServer, provider: OpenAIProvider) -> None:
    piece = chat.chunk({"content": "hel"})
    server.will(sse(piece), sse(piece, cut=True), sse(piece, '{"error": {"message": "boom"}}'))
    for _ in range(3):
        with pytest.raises(ProviderUnavailable):
            await collect(provider)


async def test_no_answer(server: WireServer, provider: OpenAIProvider) -> None:
    server.will(hang_up())
    with pytest.raises(ProviderUnavailable):
        await provider.complete(REQUEST)


async def test_refusal_is_text_with_its_reason(
    server: WireServer, provider: OpenAIProvider
) -> None:
    server.will(
        sse(chat.chunk({"refusal": "No."}), chat.chunk({}, "stop"), chat.usage_chunk(), "[DONE]")
    )
    _, response = await collect(provider)
    assert response.message.content == "No."
    assert response.finish is FinishReason.REFUSAL


async def test_history_of_another_provider(server: WireServer, provider: OpenAIProvider) -> None:
    long_id = "gemini_" + "x" * 60
    server.will(chat.reply("done"))
    await provider.complete(
        ModelRequest(
            model="m",
            system_prompt="",
            messages=[
                UserMessage(content="go"),
                AssistantMessage(
                    content="",
                    tool_calls=(ToolCall(id=long_id, name="look", arguments={"x": 1}),),
                    provider_data={"gemini": {"parts": [{"thoughtSignature": "c2ln"}]}},
                ),
                ToolMessage(call_id=long_id, name="look", content="seen"),
            ],
        )
    )
    _, assistant, result = server.requests[0]["messages"]
    assert assistant["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) <= 40
    assert assistant["tool_calls"][0]["function"]["arguments"] == '{"x":1}'
    assert "c2ln" not in str(server.requests[0])


def test_missing_keys_name_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with pytest.raises(ProviderMisconfigured, match="OPENAI_API_KEY is not set"):
        OpenAIProvider.from_environment()
    with pytest.raises(ProviderMisconfigured, match="OPENROUTER_API_KEY is not set"):
        openrouter_from_environment()


async def test_a_schema_on_the_wire(server: WireServer, provider: OpenAIProvider) -> None:
    plain: dict[str, object] = {"type": "object", "properties": {}}
    strict = {**plain, "required": [], "additionalProperties": False}
    free = {**plain, "additionalProperties": True}
    for schema, strict_schema in ((plain, strict), (free, None)):
        server.will(chat.reply("{}"))
        output = OutputSpec(name="Empty", schema=schema)
        await provider.complete(replace(REQUEST, output=output))
        assert server.requests[-1]["response_format"] == {
            "type": "json_schema",
            "json_schema": {
                "name": "Empty",
                "schema": strict_schema or schema,
                "strict": strict_schema is not None,
            },
        }


async def test_images_and_files_on_the_wire(server: WireServer, provider: OpenAIProvider) -> None:
    server.will(chat.reply("A cat."))
    await provider.complete(with_attachments(REQUEST))
    encoded = base64.b64encode(PNG).decode()
    assert server.requests[-1]["messages"][-1]["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{encoded}"},
        },
    ]


async def test_openrouter_from_environment(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    monkeypatch.setenv("OPENROUTER_BASE_URL", f"{server.url}/api/v1")
    provider = openrouter_from_environment()
    server.will(chat.reply("hello"))
    assert (await provider.complete(REQUEST)).message.content == "hello"
    assert server.paths == ["/api/v1/chat/completions"]
    await provider.aclose()


async def test_base_url_from_environment(
    server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v9")
    provider = OpenAIProvider.from_environment()
    server.will(chat.reply("hello"))
    await provider.complete(REQUEST)
    assert server.paths == ["/v9/chat/completions"]
    await provider.aclose()


async def test_names_of_tools_that_there_are_not(
    server: WireServer, provider: OpenAIProvider
) -> None:
    """A model may call anything; the API takes it back under a name of its own rules only."""
    call = ToolCall(id="a", name="functions.look up \u00e4" + "x" * 100, arguments={})
    messages: list[Message] = [
        UserMessage(content="go"),
        AssistantMessage(content="", tool_calls=(call,)),
        ToolMessage(call_id="a", name=call.name, content="there is no such tool"),
    ]
    server.will(chat.reply("sorry"))
    await provider.complete(replace(REQUEST, messages=messages))
    [sent] = server.requests[0]["messages"][2]["tool_calls"]
    assert sent["function"]["name"] == "functions_look_up__" + "x" * 45


async def test_a_character_cut_in_half_by_a_stream(
    server: WireServer, provider: OpenAIProvider
) -> None:
    server.will(chat.streamed("\ud83d", "\ude00"), chat.streamed("\ud83d", "x"))
    _, response = await collect(provider)
    assert clean_text(response.message.content) == "\U0001f600"
    _, response = await collect(provider)
    assert clean_text(response.message.content) == "\ufffdx"


@pytest.mark.parametrize("depth", [300, 5000, 100_000])
async def test_an_answer_nested_too_deep(
    server: WireServer, provider: OpenAIProvider, depth: int
) -> None:
    deep = "[" * depth + "]" * depth
    body = f'{{"choices": [{{"message": {{"content": {deep}}}}}]}}'
    chunk = f'{{"choices": [{{"delta": {{"content": {deep}}}}}]}}'
    server.will(text(body), sse(chunk))
    with pytest.raises(ProviderUnavailable):
        await provider.complete(REQUEST)
    with pytest.raises(ProviderUnavailable):
        await collect(provider)


async def test_an_error_whose_code_is_not_text(
    server: WireServer, provider: OpenAIProvider
) -> None:
    server.will(status(400, {"error": {"message": ["no"], "code": {"a": []}}}))
    with pytest.raises(ProviderRejected):
        await provider.complete(REQUEST)


@pytest.mark.parametrize(
    ("given", "finish"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.CONTENT_FILTER),
        # Wrong, but seen on the wire: there are no calls.
        ("tool_calls", FinishReason.STOP),
    ],
)
async def test_why_the_model_stopped(
    server: WireServer, provider: OpenAIProvider, given: str, finish: FinishReason
) -> None:
    server.will(
        chat.reply("hel", finish=given),
        sse(chat.chunk({"content": "hel"}), chat.chunk({}, given), chat.usage_chunk(), "[DONE]"),
    )
    assert (await provider.complete(REQUEST)).finish is finish
    pieces, response = await collect(provider)
    assert (pieces, response.message.content, response.finish) == (["hel"], "hel", finish)


async def test_an_answer_that_ends_with_an_error_is_asked_for_again(
    server: WireServer, provider: OpenAIProvider
) -> None:
    """OpenRouter's finish reason when the provider behind it breaks off."""
    server.will(
        chat.reply("hel", finish="error"),
        sse(chat.chunk({"content": "hel"}), chat.chunk({}, "error"), "[DONE]"),
    )
    with pytest.raises(ProviderUnavailable, match="ended its answer with an error"):
        await provider.complete(REQUEST)
    with pytest.raises(ProviderUnavailable, match="ended its answer with an error"):
        await collect(provider)


async def test_calls_of_an_answer_that_was_cut_off(
    server: WireServer, provider: OpenAIProvider
) -> None:
    """Arguments that are missing must not be taken for no arguments."""
    look = {"index": 0, "id": "1", "function": {"name": "look", "arguments": "{}"}}
    lost = {"index": 1, "id": "2", "function": {"name": "look", "arguments": ""}}
    plain = [chat.call("1", "look", ""), chat.call("2", "look", "")]
    server.will(
        chat.reply(None, *plain, finish="length"),
        sse(chat.chunk({"tool_calls": [look, lost]}), chat.chunk({}, "length"), "[DONE]"),
        chat.reply(None, chat.call("1", "look", '{"a": 1'), finish="length"),
        chat.reply(None, chat.call("1", "look", "")),
    )
    whole, (_, streamed) = await provider.complete(REQUEST), await collect(provider)
    for response in (whole, streamed):
        assert response.finish is FinishReason.LENGTH
        assert [call.malformed for call in response.message.tool_calls] == [None, ""]
    [call] = (await provider.complete(REQUEST)).message.tool_calls
    assert call.malformed == '{"a": 1'
    [call] = (await provider.complete(REQUEST)).message.tool_calls
    assert call.malformed is None


async def test_a_refusal_is_marked_as_it_arrives(
    server: WireServer, provider: OpenAIProvider
) -> None:
    server.will(sse(chat.chunk({"refusal": "No."}), chat.chunk({}, "stop"), "[DONE]"))
    parts = [part async for part in provider.stream(REQUEST)]
    assert parts[0] == TextDelta(text="No.", refusal=True)
