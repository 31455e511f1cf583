"""Answers that no server should give."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage
from agentapi.errors import ProviderUnavailable
from agentapi.providers import FinishReason, ModelResponse
from agentapi.providers.answers import MOST_TOKENS, checked, count
from agentapi.providers.errors import LONGEST_MESSAGE, refused
from agentapi.providers.openai.answers import Gathered, Unreadable, response_from, usage_from


def test_a_long_error_is_cut() -> None:
    error = refused("p", 500, "\ud83d" + "x" * 100_000, secret="")
    assert LONGEST_MESSAGE <= len(str(error)) < LONGEST_MESSAGE + 100
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


def test_what_is_whole_stays_as_it_is() -> None:
    given = response(AssistantMessage(content="\u00e4"), Usage(input_tokens=1))
    assert checked(given, "p") is given


def test_counts_that_are_none() -> None:
    usage = Usage(input_tokens=10**30, output_tokens="7")  # type: ignore[arg-type]
    assert checked(response(AssistantMessage(content="")), "p").usage == Usage()
    assert checked(response(AssistantMessage(content=""), usage), "p").usage == Usage()


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
        checked(response(message), "p")


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
