"""Converts items of earlier responses that a client sends back to the original messages.

The items are looked up in the tenant's own turns, so that a history contains the real calls and
results, with all data that providers need back. If the turn is no longer stored, the client's
version is used, as complete pairs of a call and its result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import orjson

from agentapi.conversation.messages import (
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentapi.errors import TurnNotFound
from agentapi.turns import Turn, TurnStatus
from orchestrator.gateway.http.errors import NotFound
from orchestrator.gateway.ids import call_item_id, is_turn_id, name_of_item, new_message_key
from orchestrator.gateway.openai.function_items import (
    ApprovalDecision,
    FunctionCall,
    FunctionOutput,
    FunctionRound,
)
from orchestrator.gateway.openai.input import Entry, GivenCall, InputMessage, Reference
from orchestrator.gateway.openai.items import items_of
from orchestrator.gateway.view import TenantView


async def messages_of(view: TenantView, entries: Sequence[Entry]) -> list[Message]:
    """Convert entries of a request to messages with their own keys.

    Args:
        view: The caller's view. Items of other tenants do not exist in it.
        entries: Messages, calls and references.

    Raises:
        NotFound: A reference names an item that does not exist.
        UnsupportedParameter: A message has images or files.
        StoreUnavailable: Redis is out of reach.
    """
    turns = await _turns(view, entries)
    found: list[Message] = []
    # Process adjacent entries of one turn together, because a text and its calls were one message.
    for source, neighbours in groupby(entries, _source):
        group, turn = list(neighbours), turns.get(source or "")
        found += _as_given(group) if turn is None else _of_turn(turn, group)
    return found


async def not_in(view: TenantView, internal: str, entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries that are not items of the conversation, since clients may send such items again.

    Args:
        view: The caller's view.
        internal: The conversation's id in Redis.
        entries: Messages, calls and references.

    Raises:
        StoreUnavailable: Redis is out of reach.
    """
    turns = await _turns(view, entries, all_of_them=True)

    def known(entry: Entry) -> bool:
        turn = turns.get(_source(entry) or "")
        return turn is not None and turn.conversation_id == internal

    return [entry for entry in entries if not known(entry)]


def _source(entry: Entry) -> str | None:
    """The turn of an entry's item, from the item's id; None if there is none."""
    name = name_of_item(entry.id) if entry.id is not None else None
    return name if isinstance(name, str) and is_turn_id(name) else None


async def _turns(
    view: TenantView, entries: Sequence[Entry], *, all_of_them: bool = False
) -> Mapping[str, Turn]:
    """The turns of the entries, if they are still stored."""
    wanted = {
        source: None
        for entry in entries
        # A text alone is complete, so its turn need not be read.
        if all_of_them or not isinstance(entry, InputMessage)
        if (source := _source(entry)) is not None
    }
    found: dict[str, Turn] = {}
    for turn_id in wanted:
        try:
            found[turn_id] = await view.turn(turn_id)
        except TurnNotFound:
            continue
    return found


def _of_turn(turn: Turn, entries: Sequence[Entry]) -> Iterator[Message]:
    key = new_message_key()
    made = _made_by(turn)
    items = list(items_of(made))
    output = [item for item in items if not isinstance(item.message, UserMessage)]
    for whole, messages in ((items, made), (output, [m for m in made if m.role != "user"])):
        if [item.id for item in whole] == [entry.id for entry in entries] and _same_texts(
            entries, [item.message for item in whole]
        ):
            yield from (replace(message, turn_id=key) for message in messages)
            return
    by_id = {item.id: item for item in items}
    results = {m.call_id: m for m in made if isinstance(m, ToolMessage)}
    for entry in entries:
        item = by_id.get(entry.id or "")
        if isinstance(entry, InputMessage):
            # The client may have changed the history, which it is free to define.
            yield entry.message(key)
        elif item is None:
            yield from _as_given([entry])
        elif item.item["type"] == "message":
            text = item.item["content"][0]["text"] if item.item["content"] else ""
            role = item.item["role"]
            yield InputMessage(role=role, text=text).message(key)
        elif isinstance(item.message, AssistantMessage):
            yield from _pair(item.message, results, item.id, key)


def _made_by(turn: Turn) -> Sequence[Message]:
    """A turn's messages; if it left none, only the user's message."""
    if turn.status is TurnStatus.COMPLETED and turn.messages:
        return turn.messages
    return [UserMessage(content=turn.input, turn_id=turn.turn_id)]


def _same_texts(entries: Sequence[Entry], messages: Sequence[Message]) -> bool:
    return all(
        not isinstance(entry, InputMessage) or entry.text == message.content
        for entry, message in zip(entries, messages, strict=True)
    )


def _pair(
    message: AssistantMessage, results: Mapping[str, ToolMessage], item_id: str, key: str
) -> Iterator[Message]:
    """The call with an item's id in a message, with its result."""
    for call in message.tool_calls:
        result = results.get(call.id)
        if result is not None and call_item_id(message.turn_id or "", call.id) == item_id:
            # Data that a provider needs back belongs to the whole response, so leave it out.
            yield AssistantMessage(content="", tool_calls=(call,), turn_id=key, model=message.model)
            yield replace(result, turn_id=key)


def _as_given(entries: Sequence[Entry]) -> Iterator[Message]:
    for entry in entries:
        match entry:
            case InputMessage():
                yield entry.message()
            case Reference():
                raise NotFound(
                    f"{entry.place}: there is no item {entry.id!r}: it was deleted, or its "
                    "response is no longer stored; send the item itself",
                    param=entry.place,
                    code="item_not_found",
                )
            case GivenCall():
                yield from _given_pair(entry)
            case FunctionRound():
                yield from entry.messages()
            case FunctionCall() | FunctionOutput() | ApprovalDecision():
                # `rounds` has already combined those that belong to the history.
                continue


def _given_pair(given: GivenCall) -> Iterator[Message]:
    if given.output is None:
        # A history must not have calls without results.
        return
    key = new_message_key()
    try:
        arguments = orjson.loads(given.arguments)
    except orjson.JSONDecodeError:
        arguments = None
    whole = isinstance(arguments, dict)
    call = ToolCall(
        id=given.id,
        name=given.name,
        arguments=arguments if whole else {},
        malformed=None if whole else given.arguments,
    )
    yield AssistantMessage(content="", tool_calls=(call,), turn_id=key)
    yield ToolMessage(
        call_id=given.id,
        name=given.name,
        content=given.output,
        is_error=given.failed,
        turn_id=key,
    )
