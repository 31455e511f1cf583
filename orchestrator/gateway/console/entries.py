"""Entries of lists, with the data that their viewer may see."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from agentapi.stores import ConversationSummary, TurnSummary
from agentapi.turns import TurnStatus
from orchestrator.gateway.console.security import ROOT
from orchestrator.gateway.console.view import ConsoleView

_ID_SHOWN = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnEntry:
    """A turn in a list. Times are seconds since 1970.

    Attributes:
        address: Its page.
        short_id: The beginning of its id.
        conversation: The name of its conversation.
        conversation_address: The page of its conversation.
        seconds: Seconds from its first claim to its end, or to now; None before it began.
        error_code: The code of its error, if it failed.
        error_text: The text of the error, for viewers who may see it.
    """

    address: str
    turn_id: str
    short_id: str
    status: str
    agent: str
    conversation: str
    conversation_address: str
    tenant: str | None
    user: str | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    wakes_at: float | None
    seconds: float | None
    attempt: int
    steps: int
    worker: str | None
    cancelled: bool
    parent_address: str | None
    error_code: str | None
    error_text: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationEntry:
    """A conversation in a list. Times are seconds since 1970.

    Attributes:
        address: Its page.
        name: Its name on pages.
        metadata: Its creator's labels, for viewers who may see them.
        archived: Whether its history is in the archive.
    """

    address: str
    name: str
    conversation_id: str
    agent: str | None
    tenant: str | None
    user: str | None
    messages: int
    turns: int
    open_turns: int
    tokens: int
    cost: float
    created_at: float
    updated_at: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    archived: bool = False


def turn_address(turn_id: str) -> str:
    """The page of a turn."""
    return f"{ROOT}/turns/{turn_id}"


def conversation_address(conversation_id: str) -> str:
    """The page of a conversation, by its id in Redis."""
    return f"{ROOT}/conversation?{urlencode({'id': conversation_id})}"


def turn_entry(view: ConsoleView, turn: TurnSummary) -> TurnEntry:
    """A turn as its viewer may see it."""
    error = turn.error
    text = view.public(error.message, error.code) if error and view.viewer.content else None
    ran = None
    if turn.started_at is not None and turn.status is not TurnStatus.QUEUED:
        ran = (turn.ended_at or time.time()) - turn.started_at
    return TurnEntry(
        address=turn_address(turn.turn_id),
        turn_id=turn.turn_id,
        short_id=turn.turn_id[:_ID_SHOWN],
        status=turn.status.value,
        agent=turn.agent,
        conversation=view.name_of(turn.conversation_id),
        conversation_address=conversation_address(turn.conversation_id),
        tenant=turn.tenant_id,
        user=turn.user_id,
        created_at=turn.created_at,
        started_at=turn.started_at,
        ended_at=turn.ended_at,
        wakes_at=turn.wakes_at,
        seconds=ran,
        attempt=turn.attempt,
        steps=turn.steps,
        worker=turn.worker if view.viewer.operates else None,
        cancelled=turn.cancel_requested and turn.status is not TurnStatus.CANCELLED,
        parent_address=turn_address(turn.parent_id) if turn.parent_id else None,
        error_code=error.code if error else None,
        error_text=text,
    )


def conversation_entry(view: ConsoleView, found: ConversationSummary) -> ConversationEntry:
    """A conversation as its viewer may see it."""
    return ConversationEntry(
        address=conversation_address(found.conversation_id),
        name=view.name_of(found.conversation_id),
        conversation_id=found.conversation_id,
        agent=found.agent,
        tenant=found.tenant_id,
        user=found.user_id,
        messages=found.messages,
        turns=found.turns,
        open_turns=found.open_turns,
        tokens=found.tokens,
        cost=found.cost,
        created_at=found.created_at,
        updated_at=found.updated_at,
        metadata=found.metadata if view.viewer.content else {},
        archived=found.archived,
    )
