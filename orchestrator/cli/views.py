"""Formats turns, results, calls and messages as JSON and as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.text import Text

    from agentapi import Event, PendingCall, Turn, TurnResult

_ENTERED_ELSEWHERE: Final = frozenset({"messages", "last_event"})
"""Fields of a turn that `history` and `follow` print."""


def iso(seconds: float | None) -> str | None:
    """A time as ISO 8601, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def turn_json(turn: Turn) -> dict[str, Any]:
    """A turn as JSON-like values: all fields, with times as ISO 8601."""
    return record_json(turn, without=_ENTERED_ELSEWHERE)


def record_json(record: Any, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A dataclass as JSON-like values. Times, whose names end in ``_at``, are ISO 8601."""
    from pydantic_core import to_jsonable_python

    values = {each.name: getattr(record, each.name) for each in fields(record)}
    return {
        name: iso(value)
        if name.endswith("_at") and isinstance(value, int | float)
        else to_jsonable_python(value, fallback=str)
        for name, value in values.items()
        if name not in without
    }


def result_json(turn_id: str, conversation_id: str, result: TurnResult[Any]) -> dict[str, Any]:
    """The result of a completed turn as JSON-like values."""
    shown = record_json(result, without=frozenset({"messages"}))
    ids = {"turn_id": turn_id, "conversation_id": conversation_id, "status": "completed"}
    return {**ids, **shown}


def event_json(event: Event) -> dict[str, Any]:
    """An event as JSON-like values."""
    return {"number": event.number, "type": event.type.value, **event.data}


def call_json(call: PendingCall) -> dict[str, Any]:
    """A waiting call as JSON-like values."""
    return record_json(call)


def call_text(call: PendingCall) -> str:
    """A waiting call in one line."""
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    return f"{call.agent} wants to call {call.tool}({arguments})"


def message_text(message: Mapping[str, Any]) -> Text:
    """A message of a history as text."""
    from rich.text import Text

    from orchestrator.cli.console import printable

    text = Text(f"{message['role']:>9} ", style="bold")
    text.append(printable(message["content"]), style="not bold")
    for attachment in message.get("attachments", ()):
        what = attachment.get("name") or attachment.get("media_type") or attachment.get("url")
        text.append(printable(f" [{attachment['kind']} {what}]"), style="not bold dim")
    for call in message.get("tool_calls", ()):
        arguments = json.dumps(call["arguments"], ensure_ascii=False)
        text.append(printable(f" -> {call['name']}({arguments})"), style="not bold dim")
    return text
