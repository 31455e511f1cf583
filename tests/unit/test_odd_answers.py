"""Answers that no server should give."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from agentapi.errors import ProviderUnavailable
from agentapi.messages import AssistantMessage, ToolCall, Usage, dumps
from agentapi.providers import FinishReason, ModelResponse
from agentapi.providers.answers import MOST_TOKENS, count, kept
from agentapi.providers.errors import LONGEST_MESSAGE, refused
from agentapi.providers.openai_answers import Gathered, Unreadable, response_from, usage_from
from agentapi.text import Cleaner, clean, cut


def test_halves_of_characters() -> None:
    assert clean("plain") == "plain"
    assert clean("\u00e4 \U0001f600") == "\u00e4 \U0001f600"
    assert clean("\ud83d\ude00") == "\U0001f600"
    assert clean("a\ud83db\ude00") == "a\ufffdb\ufffd"
    assert clean("\ufeff\ud83d") == "\ufeff\ufffd"


def test_halves_in_different_pieces_become_one_character() -> None:
    cleaner = Cleaner()
    assert [cleaner.add(piece) for piece in ("a\ud83d", "\ude00b", "\ud83d")] == [
        "a",
        "\U0001f600b",
        "",
    ]
    assert cleaner.rest() == "\ufffd"
    assert cleaner.rest() == ""


def test_long_texts_are_cut() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "abc… [cut off]"
    error = refused("p", 500, "\ud83d" + "x" * 100_000, secret="")
    assert LONGEST_MESSAGE <= len(str(error)) < LONGEST_MESSAGE + 50
    str(error).encode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        (7.0, 7),
        (None, 0),
        (True, 0),
        ("7", 0),
        ([], 0),
        (-1, 0),
        (math.nan, 0),
        (math.inf, 0),
        (MOST_TOKENS + 1, 0),
        (10**30, 0),
    ],
)
def test_counts(value: object, expected: int) -> None:
    assert count(value) == expected
    assert usage_from({"prompt_tokens": value}) == Usage(input_tokens=expected)
    usage_from(value)
    usage_from({"prompt_tokens_details": value})


def response(message: Any, usage: Any = None) -> ModelResponse:
    return ModelResponse(message=message, usage=usage or Usage(), finish=FinishReason.STOP)


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


@pytest.mark.parametrize("arguments", [{"n": 10**30}, nested(400), nested(5000)])
def test_arguments_that_cannot_be_written_are_malformed(arguments: dict[str, Any]) -> None:
    call = ToolCall(id="c", name="look", arguments=arguments)
    found = kept(response(AssistantMessage(content="", tool_calls=(call,))), "p").message
    dumps(found)
    assert found.tool_calls[0].arguments == {}
    assert found.tool_calls[0].malformed


def test_what_can_be_kept_stays_as_it_is() -> None:
    given = response(AssistantMessage(content="\u00e4"), Usage(input_tokens=1))
    assert kept(given, "p") is given


def test_a_response_is_cleaned() -> None:
    call = ToolCall(id="\ud83d", name="a\ude00", arguments={"\ud83d": ["\ud83d\ude00"]})
    message = AssistantMessage(
        content="\ud83d\ude00", tool_calls=(call,), provider_data={"p": {"n": 10**30}}
    )
    found = kept(response(message, Usage(input_tokens=10**30)), "p")
    assert found.usage == Usage()
    assert found.message.content == "\U0001f600"
    assert found.message.provider_data == {}
    assert found.message.tool_calls == (
        ToolCall(id="\ufffd", name="a\ufffd", arguments={"\ufffd": ["\U0001f600"]}),
    )


@pytest.mark.parametrize(
    "message",
    [
        None,
        AssistantMessage(content=None),  # type: ignore[arg-type]
        AssistantMessage(content="", tool_calls=[]),  # type: ignore[arg-type]
        AssistantMessage(content="", provider_data=[]),  # type: ignore[arg-type]
        AssistantMessage(
            content="",
            tool_calls=(ToolCall(id=1, name="a", arguments={}),),  # type: ignore[arg-type]
        ),
    ],
)
def test_a_response_of_the_wrong_types(message: Any) -> None:
    with pytest.raises(ProviderUnavailable, match="wrong types"):
        kept(response(message), "p")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"choices": None},
        {"choices": {}},
        {"choices": [None]},
        {"choices": [{"message": "hi"}]},
        {"choices": [{"message": {"content": 7}}]},
        {"choices": [{"message": {"content": [{"text": 7}]}}]},
        {"choices": [{"message": {"tool_calls": {}}}]},
        {"choices": [{"message": {"tool_calls": [{"function": {}}]}}]},
        {"choices": [{"message": {"tool_calls": [{"function": {"name": "a", "arguments": 1}}]}}]},
    ],
)
def test_what_is_not_a_completion(body: Any) -> None:
    with pytest.raises(Unreadable):
        response_from(body)


def test_forms_that_some_servers_use() -> None:
    function = {"name": "look", "arguments": {"at": 1}}
    message = {
        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        "tool_calls": [{"id": None, "function": function}],
    }
    found = response_from({"choices": [{"message": message, "finish_reason": ["stop"]}]})
    assert found.message.content == "ab"
    assert found.message.tool_calls == (ToolCall(id="", name="look", arguments={"at": 1}),)


def test_calls_in_a_stream_that_are_not_counted() -> None:
    gathered = Gathered()
    for fragment in (
        {"id": "a", "function": {"name": "one", "arguments": '{"x":'}},
        {"function": {"arguments": " 1}"}},
        {"id": "b", "function": {"name": "two", "arguments": "{}"}},
    ):
        gathered.add({"choices": [{"delta": {"tool_calls": [fragment]}}]})
    assert gathered.response().message.tool_calls == (
        ToolCall(id="a", name="one", arguments={"x": 1}),
        ToolCall(id="b", name="two", arguments={}),
    )


def test_a_character_in_halves_in_a_stream_of_arguments() -> None:
    gathered = Gathered()
    whole = json.dumps({"at": "x"}).replace("x", "\ud83d")
    for piece in (whole[: whole.index("\ud83d") + 1], "\ude00" + whole[-2:]):
        call = {"index": 0, "id": "a", "function": {"name": "one", "arguments": piece}}
        gathered.add({"choices": [{"delta": {"tool_calls": [call]}}]})
    [found] = gathered.response().message.tool_calls
    assert found.arguments == {"at": "\U0001f600"}
