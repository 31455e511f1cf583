"""The demo's own check finds what it is there to find."""

from __future__ import annotations

from typing import Any

from orchestrator.demo.check import check_history

EXPECTED = [("t1", "one"), ("t2", "two")]


def turn(number: int, text: str) -> list[dict[str, Any]]:
    turn_id = f"t{number}"
    return [
        {"role": "user", "content": text, "turn_id": turn_id},
        {"role": "assistant", "content": "yes", "turn_id": turn_id},
    ]


GOOD = [*turn(1, "one"), *turn(2, "two")]


def test_a_good_history() -> None:
    assert check_history("c", EXPECTED, GOOD) == []


def test_lost_repeated_and_reordered_turns() -> None:
    assert "lost ['two']" in check_history("c", EXPECTED, turn(1, "one"))[0]
    assert "repeated ['two']" in check_history("c", EXPECTED, [*GOOD, *turn(2, "two")])[0]
    swapped = [*turn(2, "two"), *turn(1, "one")]
    assert check_history("c", EXPECTED, swapped) == ["c: 2 of 2 turns; out of order"]


def test_half_turns() -> None:
    assert check_history("c", EXPECTED, GOOD[:3]) == ["c: turn t2 is not complete"]
    with_call = [dict(message) for message in GOOD]
    with_call[3]["tool_calls"] = [{"id": "x"}]
    assert check_history("c", EXPECTED, with_call) == ["c: turn t2 is not complete"]
