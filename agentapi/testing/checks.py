"""Assertions about turns, with messages that say what happened instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from agentapi.conversation.messages import AssistantMessage, ToolCall, to_dict
from agentapi.turns import Turn, TurnStatus


class HasInfo(Protocol):
    """The handle of a turn, as returned by `Orchestrator.enqueue`."""

    def info(self) -> Turn:
        """The current state of the turn."""
        ...


def assert_completed(turn: Turn | HasInfo, text: str | None = None) -> Turn:
    """Assert that a turn has completed.

    Args:
        turn: The turn, or its handle.
        text: The expected reply; any when not given.

    Returns:
        The current state of the turn.

    Raises:
        AssertionError: It has another status or reply; the message says which.
    """
    found = turn if isinstance(turn, Turn) else turn.info()
    why = f": {found.error.code}: {found.error.message}" if found.error else ""
    assert found.status is TurnStatus.COMPLETED, f"the turn is {found.status}{why}"
    assert text is None or found.text == text, f"the turn replied {found.text!r}, not {text!r}"
    return found


def assert_failed(turn: Turn | HasInfo, code: str) -> Turn:
    """Assert that a turn failed with an error code, such as ``provider_rejected``.

    Raises:
        AssertionError: It has another status or code; the message says which.
    """
    found = turn if isinstance(turn, Turn) else turn.info()
    actual = found.error.code if found.error else None
    assert found.status is TurnStatus.FAILED, f"the turn is {found.status}, not failed"
    assert actual == code, f"the turn failed with {actual!r}, not {code!r}"
    return found


def tool_calls(turn: Turn | HasInfo) -> list[ToolCall]:
    """The tool calls of a completed turn, in order."""
    found = turn if isinstance(turn, Turn) else turn.info()
    return [
        call
        for message in found.messages
        if isinstance(message, AssistantMessage)
        for call in message.tool_calls
    ]


def assert_called(turn: Turn | HasInfo, tool: str, **arguments: Any) -> ToolCall:
    """Assert that a turn called a tool with these arguments, perhaps among others.

    Raises:
        AssertionError: It did not; the message lists its calls.
    """
    made = tool_calls(turn)
    for call in made:
        if call.name == tool and arguments.items() <= dict(call.arguments).items():
            return call
    raise AssertionError(f"{tool}({_shown(arguments)}) was not called; {_list(made)}")


def assert_not_called(turn: Turn | HasInfo, tool: str) -> None:
    """Assert that a turn did not call a tool.

    Raises:
        AssertionError: It did; the message lists the calls.
    """
    made = [call for call in tool_calls(turn) if call.name == tool]
    assert not made, _list(made)


def assert_valid_history(history: Sequence[Any]) -> None:
    """Assert that a result follows each tool call, as every provider requires.

    Args:
        history: Messages, or the plain dicts of `Orchestrator.history` and `Memory.messages`.

    Raises:
        AssertionError: A result is missing; the message names the call.
    """
    waiting: set[str] = set()
    for message in history:
        plain = message if isinstance(message, Mapping) else to_dict(message)
        if plain["role"] == "tool":
            assert plain["call_id"] in waiting, f"result without a call: {plain['call_id']}"
            waiting.discard(plain["call_id"])
            continue
        assert not waiting, f"calls without a result: {sorted(waiting)}"
        waiting = {call["id"] for call in plain.get("tool_calls", ())}
    assert not waiting, f"calls without a result: {sorted(waiting)}"


def _list(made: Sequence[ToolCall]) -> str:
    calls = ", ".join(f"{call.name}({_shown(call.arguments)})" for call in made)
    return f"called: {calls or 'nothing'}"


def _shown(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
