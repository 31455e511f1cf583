"""Checks that a history contains exactly its turns in order, using only the public API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def check_history(
    conversation_id: str, expected: Sequence[tuple[str, str]], history: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Compare a history with the turns that should be in it.

    Args:
        conversation_id: Named in the problems.
        expected: Turn id and user message of each turn, in order of acceptance.
        history: Messages as returned by `Orchestrator.history`.

    Returns:
        Descriptions of the problems; empty if there are none.
    """
    problems: list[str] = []
    said = [(m.get("turn_id"), m["content"]) for m in history if m["role"] == "user"]
    if said != list(expected):
        counts = Counter(said)
        lost = [text for turn, text in expected if (turn, text) not in counts]
        repeated = [text for (_, text), count in counts.items() if count > 1]
        what = f"lost {lost}, repeated {repeated}" if lost or repeated else "out of order"
        problems.append(f"{conversation_id}: {len(said)} of {len(expected)} turns; {what}")
    problems += [f"{conversation_id}: {problem}" for problem in _broken_turns(history)]
    return problems


def _broken_turns(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Turns that do not end with a reply, or have a tool call without a result."""
    problems: list[str] = []
    open_calls: set[str] = set()
    for position, message in enumerate(history):
        following = history[position + 1] if position + 1 < len(history) else None
        if message["role"] == "assistant":
            open_calls = {call["id"] for call in message.get("tool_calls", ())}
        elif message["role"] == "tool":
            open_calls.discard(message["call_id"])
        turn_ends = following is None or following["role"] == "user"
        if turn_ends and (message["role"] != "assistant" or open_calls):
            problems.append(f"turn {message.get('turn_id')} is not complete")
    return problems
