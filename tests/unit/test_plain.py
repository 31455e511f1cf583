"""What comes from outside, made fit to be written down."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from agentapi.conversation.cleaning import MOST_COUNTED, clean_message, clean_usage
from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage, dumps
from agentapi.decoding.plain import Pieces, TooDeep, clean_text, cut, plain
from agentapi.faults import named

HIGH, LOW, SMILE = "\ud83d", "\ude00", "\U0001f600"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("gr\xfc\xdfe " + SMILE, "gr\xfc\xdfe " + SMILE),
        (HIGH + LOW, SMILE),
        (HIGH, "\ufffd"),
        (f"a{LOW}b{HIGH}c", "a\ufffdb\ufffdc"),
        ("\ufeffwith a mark", "\ufeffwith a mark"),
        ("\ufeff" + HIGH, "\ufeff\ufffd"),
        ("\x00", "\x00"),
    ],
)
def test_halves_of_characters(text: str, clean: str) -> None:
    assert clean_text(text) == clean
    clean_text(text).encode()


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["a" + HIGH, LOW + "b"], ["a", SMILE + "b", ""]),
        ([HIGH, LOW], ["", SMILE, ""]),
        ([HIGH, "b"], ["", "\ufffdb", ""]),
        ([HIGH, "", LOW], ["", "", SMILE, ""]),
        (["a", HIGH], ["a", "", "\ufffd"]),
        ([LOW, "a"], ["\ufffd", "a", ""]),
    ],
)
def test_a_character_in_two_pieces(pieces: list[str], shown: list[str]) -> None:
    text = Pieces()
    assert [*map(text.add, pieces), text.end()] == shown


class Thing:
    def __str__(self) -> str:
        return "a thing " + HIGH


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"a": [1, 2.5, None, True, "x"]}, {"a": [1, 2.5, None, True, "x"]}),
        (2**64 - 1, 2**64 - 1),
        (2**64, float(2**64)),
        (-(2**70), float(-(2**70))),
        ([10**5000], [None]),
        ({HIGH: HIGH}, {"\ufffd": "\ufffd"}),
        ({1: {"x"}, None: (2,)}, {"1": ["x"], "None": [2]}),
        ([Thing(), b"\xff"], ["a thing \ufffd", "b'\\xff'"]),
    ],
)
def test_values(value: Any, stored: Any) -> None:
    assert plain(value) == stored
    orjson.dumps(plain(value))


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def test_values_that_are_too_deep() -> None:
    assert plain(nested(90)) == nested(90)
    endless: list[Any] = []
    endless.append(endless)
    for deep in (nested(245), nested(5000), endless):
        with pytest.raises(TooDeep, match="more than 100 levels"):
            plain(deep)


def test_an_answer_can_always_be_stored() -> None:
    call = ToolCall(id=HIGH, name="x" + LOW, arguments={"n": 10**30, "s": HIGH + LOW})
    deep = ToolCall(id="2", name="y", arguments=nested(3000))
    bad = ToolCall(id="3", name="z", arguments={}, malformed="{" + HIGH)
    message = AssistantMessage(
        content=HIGH + LOW,
        tool_calls=(call, deep, bad),
        provider_data={"own": {"key": object}},
        model="m" + HIGH,
    )
    clean = clean_message(message)
    dumps(clean)
    assert clean.content == SMILE
    assert clean.tool_calls[0].arguments == {"n": 1e30, "s": SMILE}
    assert clean.tool_calls[1].malformed is not None
    assert clean.tool_calls[2].malformed == "{\ufffd"
    assert (
        clean_message(AssistantMessage(content="", provider_data=nested(500))).provider_data == {}
    )


def test_counts() -> None:
    wrong: Any = Usage(input_tokens=10**30, output_tokens=-1, cached_tokens=float("nan"))  # type: ignore[arg-type]
    assert clean_usage(wrong) == Usage(input_tokens=MOST_COUNTED)
    none: Any = Usage(input_tokens=None, output_tokens=2)  # type: ignore[arg-type]
    assert clean_usage(none) == Usage(output_tokens=2)


def test_an_error_that_cannot_say_what_it_is() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise SystemExit

    assert named(Odd()) == "Odd: (its text cannot be read)"
    assert named(ValueError("x" + HIGH)) == "ValueError: x\ufffd"


def test_cutting() -> None:
    assert cut("\xfc" * 10, 20) == "\xfc" * 10
    assert cut("\xfc" * 10, 19) == "\xfc" * 9 + "\n[cut off: 20 bytes, the limit is 19]"
