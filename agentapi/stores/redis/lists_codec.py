"""Reads the answers of list.lua.

One unreadable record must not hide all others: its unreadable parts are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from agentapi.archive.turns import ArchivedTurn
from agentapi.stores.lists import ConversationSummary, TurnSummary
from agentapi.stores.redis.codec import pairs
from agentapi.turns import TurnError, TurnKind, TurnStatus
from agentapi.turns.kinds import kind_of


def turn_if_here(turn_id: str, flat: Sequence[bytes]) -> TurnSummary | None:
    """Read a turn of a list; None if its record is in the archive."""
    return None if flat[0] == b"moved" else turn_summary(turn_id, flat)


def archived_summary(turn: ArchivedTurn) -> TurnSummary:
    """A turn of a list whose record is in the archive."""
    return TurnSummary(
        turn_id=turn.turn_id,
        conversation_id=turn.conversation_id,
        agent=turn.agent,
        kind=_kind(turn.kind, turn.agent),
        user_id=turn.user_id or None,
        tenant_id=turn.tenant_id or None,
        status=TurnStatus(turn.status),
        created_at=turn.created / 1000,
        started_at=None if turn.started is None else turn.started / 1000,
        ended_at=turn.ended / 1000,
        attempt=turn.attempt,
        steps=turn.steps,
        worker=turn.worker,
        cancel_requested=turn.cancel_requested,
        parent_id=turn.parent_id,
    )


def turn_summary(turn_id: str, flat: Sequence[bytes]) -> TurnSummary:
    """Read a turn of a list."""
    fields = pairs(flat)
    status = TurnStatus(_text(fields, "status") or "")
    agent = _text(fields, "agent") or ""
    error = None
    if status is TurnStatus.FAILED:
        code, message = (_text(fields, name) or "" for name in ("code", "text"))
        error = TurnError(code=code, message=message)
    return TurnSummary(
        turn_id=turn_id,
        conversation_id=_text(fields, "conversation") or "",
        agent=agent,
        kind=_kind(_text(fields, "kind"), agent),
        user_id=_text(fields, "user"),
        tenant_id=_text(fields, "tenant"),
        status=status,
        created_at=_seconds(fields, "created") or 0.0,
        started_at=_seconds(fields, "started"),
        ended_at=_seconds(fields, "ended"),
        wakes_at=_seconds(fields, "wake") if status is TurnStatus.PARKED else None,
        attempt=_number(fields, "attempt"),
        steps=_number(fields, "steps"),
        worker=_text(fields, "worker"),
        cancel_requested="cancel" in fields,
        parent_id=_text(fields, "parent"),
        error=error,
    )


def conversation_summary(conversation_id: str, flat: Sequence[bytes]) -> ConversationSummary:
    """Read a conversation of a list."""
    fields = pairs(flat)
    return ConversationSummary(
        conversation_id=conversation_id,
        created_at=_seconds(fields, "created") or 0.0,
        updated_at=_seconds(fields, "updated") or 0.0,
        agent=_text(fields, "agent"),
        user_id=_text(fields, "user"),
        tenant_id=_text(fields, "tenant"),
        turns=_number(fields, "turns"),
        open_turns=_number(fields, "waiting"),
        messages=_number(fields, "messages"),
        tokens=_number(fields, "tokens"),
        cost=_real(fields, "cost") or 0.0,
        metadata=_labels(fields.get("metadata", b"{}")),
        archived="archived" in fields,
    )


def _kind(stored: str | None, agent: str) -> TurnKind:
    try:
        return kind_of(agent) if stored is None else TurnKind(stored)
    except ValueError:
        # A turn of a newer release: people see its agent.
        return TurnKind.AGENT


def _text(fields: Mapping[str, bytes], name: str) -> str | None:
    return fields.get(name, b"").decode(errors="replace") or None


def _real(fields: Mapping[str, bytes], name: str) -> float | None:
    try:
        return float(fields[name])
    except (KeyError, ValueError):
        return None


def _seconds(fields: Mapping[str, bytes], name: str) -> float | None:
    milliseconds = _real(fields, name)
    return None if milliseconds is None else milliseconds / 1000


def _number(fields: Mapping[str, bytes], name: str) -> int:
    try:
        return int(fields[name])
    except (KeyError, ValueError):
        return 0


def _labels(data: bytes) -> Mapping[str, str]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
