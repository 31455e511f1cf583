"""Messages of a history as the items of OpenAI's API."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from agentapi.conversation.finish import FinishReason
from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from orchestrator.gateway.http.errors import InvalidRequest
from orchestrator.gateway.ids import (
    approval_id,
    call_item_id,
    function_call_id,
    function_item_id,
    key_of,
    output_item_id,
    text_item_id,
    user_item_id,
)
from orchestrator.gateway.openai.endings import is_cut

SERVER_LABEL: Final = "agentapi"
"""The agent's own tools run in the workers. Clients see them as calls to a remote MCP server. A
`function_call` item is a call that the client runs."""

_SUMMARY: Final = "agentapi:1:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """An item, and the message that it shows.

    Attributes:
        item: The item as OpenAI's API shows it.
        message: The message.
        position: The message's position in its history.
    """

    item: dict[str, Any]
    message: Message
    position: int

    @property
    def id(self) -> str:
        """The item's id."""
        return str(self.item["id"])


def items_of(messages: Sequence[Message], first: int = 0) -> Iterator[Item]:
    """The items of consecutive messages, oldest first.

    Args:
        messages: The messages, in whole turns.
        first: Position of the first message in the history.
    """
    results = {m.call_id: m for m in messages if isinstance(m, ToolMessage)}
    responses: dict[str, int] = {}
    said: dict[str, int] = {}
    functions: dict[str, str] = {}
    for position, message in enumerate(messages, first):
        key = key_of(message, position)
        match message:
            case UserMessage():
                # A turn has several user messages if others have joined it.
                number = said[key] = said.get(key, -1) + 1
                item = user_item(key, message.content, number)
                yield Item(item=item, message=message, position=position)
            case AssistantMessage():
                number = responses[key] = responses.get(key, -1) + 1
                if message.content:
                    item = reply_item(text_item_id(key, number), message)
                    yield Item(item=item, message=message, position=position)
                for place, call in enumerate(message.tool_calls):
                    if call.client:
                        call_id = functions[call.id] = function_call_id(key, number, place)
                        item = function_item(call_id, call)
                    else:
                        item = call_item(key, call, results.get(call.id))
                    yield Item(item=item, message=message, position=position)
            case ToolMessage(call_id=call_id) if call_id in functions:
                item = output_item(functions[call_id], message.content)
                yield Item(item=item, message=message, position=position)
            case ToolMessage():
                pass


def function_item(call_id: str, call: ToolCall) -> dict[str, Any]:
    """A function call that the client executes."""
    return {
        **bare_function_item(call_id, call.name, "completed"),
        "arguments": arguments_of(call),
    }


def bare_function_item(call_id: str, name: str, status: str) -> dict[str, Any]:
    """A function call without its arguments."""
    return {
        "id": function_item_id(call_id),
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": "",
    }


def output_item(call_id: str, text: str) -> dict[str, Any]:
    """The output of a function call."""
    return {
        "id": output_item_id(call_id),
        "type": "function_call_output",
        "status": "completed",
        "call_id": call_id,
        "output": text,
    }


def approval_item(turn_id: str, call: ToolCall) -> dict[str, Any]:
    """A request to approve a call."""
    return {
        "id": approval_id(turn_id, call.id),
        "type": "mcp_approval_request",
        "name": call.name,
        "server_label": SERVER_LABEL,
        "arguments": arguments_of(call),
    }


def arguments_of(call: ToolCall) -> str:
    """The arguments of a call as JSON text."""
    if call.malformed is not None:
        return call.malformed
    return orjson.dumps(dict(call.arguments)).decode()


def same_json(text: str, other: str) -> bool:
    """Whether two texts are the same JSON, apart from whitespace."""
    try:
        return bool(text == other or orjson.loads(text) == orjson.loads(other))
    except orjson.JSONDecodeError:
        return False


def user_item(key: str, text: str, number: int = 0) -> dict[str, Any]:
    """A user's message; `number` counts those of its turn, from 0."""
    more = str(number) if number else ""
    return {
        "id": user_item_id(key) + more,
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
    }


def reply_item(item_id: str, message: AssistantMessage) -> dict[str, Any]:
    """A model's response."""
    status = "incomplete" if is_cut(message.finish_reason) else "completed"
    refusal = message.finish_reason is FinishReason.REFUSAL
    return text_item(item_id, message.content, status, refusal=refusal)


def text_item(
    item_id: str, text: str | None, status: str = "completed", *, refusal: bool = False
) -> dict[str, Any]:
    """An assistant's message; None as text means that it has no content yet."""
    return {
        "id": item_id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [] if text is None else [text_part(text, refusal=refusal)],
    }


def text_part(text: str, *, refusal: bool = False) -> dict[str, Any]:
    """A part of an assistant's message."""
    if refusal:
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def call_item(key: str, call: ToolCall, result: ToolMessage | None) -> dict[str, Any]:
    """A tool call, with its result if it has one."""
    failed = result is not None and result.is_error
    error = {"type": "mcp_tool_execution_error", "content": result.content} if failed else None  # type: ignore[union-attr]
    status = "incomplete" if result is None else "failed" if failed else "completed"
    return {
        **bare_call_item(call_item_id(key, call.id), call.name, status),
        "arguments": arguments_of(call),
        "output": None if result is None or failed else result.content,
        "error": error,
    }


def bare_call_item(item_id: str, name: str, status: str) -> dict[str, Any]:
    """A tool call without arguments and result."""
    return {
        "id": item_id,
        "type": "mcp_call",
        "status": status,
        "name": name,
        "server_label": SERVER_LABEL,
        "arguments": "",
        "output": None,
        "error": None,
        "approval_request_id": None,
    }


def compaction_item(item_id: str, summary: str) -> dict[str, Any]:
    """A summary of a conversation. Clients give it back unread; `summary_in` reads it."""
    content = base64.b64encode(f"{_SUMMARY}{summary}".encode()).decode()
    return {"id": item_id, "type": "compaction", "encrypted_content": content}


def summary_in(content: str) -> str | None:
    """The summary in a compaction item's content; None if no gateway made it."""
    try:
        text = base64.b64decode(content, validate=True).decode()
    except ValueError:
        return None
    return text.removeprefix(_SUMMARY) if text.startswith(_SUMMARY) else None


def page(
    items: Sequence[dict[str, Any]],
    *,
    after: str | None,
    limit: int,
    order: str,
    what: str = "item",
) -> dict[str, Any]:
    """A page of a list of items.

    Args:
        items: All items, oldest first.
        after: Id of the last item of the previous page.
        limit: Maximum number of items.
        order: ``asc`` or ``desc``.
        what: Kind of the items, for the error.

    Raises:
        InvalidRequest: No item has the id `after`.
    """
    ordered = list(items) if order == "asc" else list(reversed(items))
    start = 0
    if after is not None:
        places = [place for place, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise InvalidRequest(f"there is no {what} {after!r} in the list", param="after")
        start = places[0] + 1
    return list_object(ordered[start : start + limit], more=len(ordered) > start + limit)


def list_object(items: Sequence[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page as OpenAI's API shows it.

    Args:
        items: The items of the page.
        more: Whether more items follow.
    """
    return {
        "object": "list",
        "data": list(items),
        # OpenAI's types require text here, even for an empty list.
        "first_id": items[0]["id"] if items else "",
        "last_id": items[-1]["id"] if items else "",
        "has_more": more,
    }
