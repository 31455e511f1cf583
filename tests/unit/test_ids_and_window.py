"""Ids, partitions, windows, messages, settings: small things with rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentapi import load_settings
from agentapi.broker.wire import queue_of
from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
    dumps,
    from_dict,
    loads,
)
from agentapi.conversation.window import Window
from agentapi.errors import (
    ConfigurationError,
    InvalidConversationId,
    InvalidInput,
    UnreadableRecord,
)
from agentapi.ids import (
    check_conversation_id,
    create_turn_id,
    partition_of,
    partition_of_turn,
)
from agentapi.stores.redis.scripts import SCRIPTS
from agentapi.urls import without_password


@pytest.mark.parametrize(
    "conversation_id", ["user:42", "tenant:acme:user:42", "é 漢 🎈", "x" * 512, " "]
)
def test_valid_ids(conversation_id: str) -> None:
    assert check_conversation_id(conversation_id) == conversation_id


@pytest.mark.parametrize(
    "conversation_id", ["", "x" * 513, "a\nb", "a\x00", "\x85", "\ud800", 7, None]
)
def test_invalid_ids_say_what_is_expected(conversation_id: object) -> None:
    with pytest.raises(InvalidConversationId, match="expected text of 1 to 512"):
        check_conversation_id(conversation_id)


def test_partitions_are_fixed_for_ever() -> None:
    assert [partition_of(c) for c in ("user:1", "user:2", "demo:000")] == [130, 56, 120]


def test_turn_ids_carry_their_partition_and_repeat_with_their_key() -> None:
    turn_id = create_turn_id("user:1")
    assert partition_of_turn(turn_id) == 130
    assert create_turn_id("user:1") != turn_id
    assert create_turn_id("user:1", "k") == create_turn_id("user:1", "k")
    assert create_turn_id("user:1", "k") != create_turn_id("user:2", "k")
    assert queue_of(turn_id, 8) == "agentapi.2"
    for wrong in ("", "999-" + "0" * 32, turn_id.upper() + "x", "130-abc"):
        with pytest.raises(InvalidInput, match="not a turn id"):
            partition_of_turn(wrong)


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
CALLS = st.builds(
    ToolCall,
    id=TEXT,
    name=TEXT,
    arguments=st.dictionaries(TEXT, st.integers(-(2**53), 2**53) | TEXT, max_size=2),
    malformed=st.none() | TEXT,
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(UserMessage, content=TEXT, turn_id=st.none() | TEXT),
    st.builds(
        AssistantMessage,
        content=TEXT,
        tool_calls=st.lists(CALLS, max_size=2).map(tuple),
        provider_data=st.dictionaries(TEXT, TEXT, max_size=1),
    ),
    st.builds(ToolMessage, call_id=TEXT, name=TEXT, content=TEXT, is_error=st.booleans()),
)


@given(MESSAGES)
def test_messages_come_back_as_they_went(message: Message) -> None:
    assert loads(dumps(message)) == message


@given(MESSAGES)
def test_the_scripts_tell_where_a_turn_begins(message: Message) -> None:
    begins = dumps(message).startswith(b'{"v":1,"role":"user"')
    assert begins == isinstance(message, UserMessage)
    assert """'{"v":1,"role":"user"'""" in SCRIPTS.source("claim")


@pytest.mark.parametrize(
    "data",
    [
        {"v": 2, "role": "user", "content": "x"},
        {"v": "1", "role": "user", "content": "x"},
        {"v": 1, "role": "user", "content": 7},
        {"v": 1, "role": "system", "content": "x"},
        {"v": 1, "role": "tool", "content": "x"},
        {"v": 1, "role": "assistant", "content": "x", "tool_calls": [1]},
        {"v": 1, "role": "assistant", "content": "x", "tool_calls": [{"id": "a", "name": "b"}]},
    ],
)
def test_messages_of_another_format(data: dict[str, object]) -> None:
    with pytest.raises(UnreadableRecord, match="a message") as caught:
        from_dict(data)
    assert caught.value.newer == (data["v"] == 2)


@given(
    st.lists(MESSAGES, max_size=30),
    st.none() | st.integers(0, 20),
    st.none() | st.integers(0, 100),
)
def test_a_window_is_whole_turns_from_the_end(
    history: list[Message], messages: int | None, tokens: int | None
) -> None:
    chosen = list(Window(messages=messages, tokens=tokens).select(history))
    assert chosen == history[len(history) - len(chosen) :]
    if chosen:
        assert isinstance(chosen[0], UserMessage)
        turns = sum(isinstance(message, UserMessage) for message in chosen)
        assert messages is None or turns == 1 or len(chosen) <= messages
    elif any(isinstance(message, UserMessage) for message in history):
        assert messages == 0 or tokens == 0


def test_settings_say_which_variable_is_wrong_and_hide_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTAPI_REDIS_URL", "redis://:hunter2@somewhere/1")
    assert load_settings().broker_url == "redis://:hunter2@somewhere/1"
    assert load_settings(broker_url="amqp://b").broker_url == "amqp://b"
    monkeypatch.setenv("AGENTAPI_AGENTS", "one, two.three ,")
    assert load_settings().agents == ("one", "two.three")
    monkeypatch.setenv("AGENTAPI_REDIS_URL", "hunter2")
    with pytest.raises(ConfigurationError, match="AGENTAPI_REDIS_URL") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_passwords_are_hidden() -> None:
    assert without_password("redis://u:p@h:1/0") == "redis://u:***@h:1/0"
    assert without_password("redis://h:1/0") == "redis://h:1/0"
    shown = without_password("sentinel://:a@h:1;sentinel://:b@h:2")
    assert shown == "sentinel://:***@h:1;sentinel://:***@h:2"
    assert without_password("redis://u:p%40q@h:1/0?password=p&db=1") == (
        "redis://u:***@h:1/0?password=***&db=1"
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hun/ter2@h:1/0",
        "redis://:hun#ter2@h:1/0",
        "redis://:hun?ter2@h:1/0",
        "redis://:hun;ter2@h:1/0",
        "redis://:1/hunter2@h:1/0",
        "redis://hun@ter2@h:1/0",
        "redis://hunter2@h",
        "sentinel://:hun;ter2@h:1;sentinel://:hun/ter2@h:2/0",
        "amqps://guest:hun[ter2@h//",
    ],
)
def test_passwords_that_are_not_encoded_are_hidden(url: str) -> None:
    assert not any(part in without_password(url) for part in ("hun", "ter2"))


@pytest.mark.parametrize(
    "url", ["redis://:hun/ter2@h:1/0", "redis://:1/hunter2@h/0", "amqp://a:hun#ter2@h//"]
)
def test_an_error_about_a_url_has_nothing_of_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoded") as caught:
        load_settings(redis_url=url)
    told = str(caught.value)
    assert "hun" not in told
    assert "ter2" not in told


def test_parameters_for_tls_belong_into_settings() -> None:
    with pytest.raises(ConfigurationError, match="AGENTAPI_TLS_CA_FILE"):
        load_settings(redis_url="rediss://h/0?ssl_cert_reqs=none")


def test_a_wrong_url_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTAPI_REDIS_URL", "nonsense")
    with pytest.raises(ConfigurationError, match="AGENTAPI_REDIS_URL") as caught:
        load_settings()
    assert "AGENTAPI_BROKER_URL" not in str(caught.value)
