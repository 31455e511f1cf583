"""The answer of claim.lua, as our types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentapi.conversation.messages import loads
from agentapi.errors import UnreadableRecord
from agentapi.stores.answers import Claim, Refusal, RefusalReason, Unreadable
from agentapi.stores.lease import Lease
from agentapi.stores.redis.calls_codec import call_book
from agentapi.stores.redis.codec import (
    answering_from,
    calibration_from,
    pairs,
    spent_from,
    summary_from,
    turn_from_hash,
)
from agentapi.turns import Turn, step_from_json

_LONGEST_NUMBER: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimCall:
    """What was claimed."""

    conversation_id: str
    turn_id: str
    token: str

    def answer(self, reply: Sequence[Any]) -> Claim | Unreadable | Refusal:
        """Read the script's answer. A lease that was won is never lost to a record."""
        if reply[0] == b"refused":
            return Refusal(reason=RefusalReason(reply[1].decode()), turn=self._shown(reply[2]))
        _, epoch, attempt, generation, fields, *more = reply
        lease = Lease(
            conversation_id=self.conversation_id,
            turn_id=self.turn_id,
            epoch=int(epoch),
            token=self.token,
            generation=_number(generation),
        )
        turn = None
        try:
            turn = turn_from_hash(self.turn_id, pairs(fields))
            return _claim(lease, turn, more)
        except UnreadableRecord as error:
            return Unreadable(
                lease=lease,
                error=error,
                turn=turn,
                attempt=int(attempt),
                deferrals=_number(pairs(fields).get("deferrals", b"0")),
            )

    def _shown(self, fields: Sequence[bytes]) -> Turn | None:
        try:
            return turn_from_hash(self.turn_id, pairs(fields)) if fields else None
        except UnreadableRecord:
            return None


def _number(value: bytes) -> int:
    """A number that must not keep a turn from its end: 0 when it is none."""
    return int(value) if value.isdigit() and len(value) < _LONGEST_NUMBER else 0


def _claim(lease: Lease, turn: Turn, more: Sequence[Any]) -> Claim:
    steps, messages, calls, answering, spent, summary, total, now = more
    return Claim(
        lease=lease,
        turn=turn,
        steps=[step_from_json(step) for step in steps],
        history=[loads(message) for message in messages],
        calls=call_book(pairs(calls), lease.epoch),
        answering=answering_from(answering),
        spent=spent_from(spent),
        summary=summary_from(summary, total),
        calibration=calibration_from(spent[3]),
        now=int(now) / 1000,
    )
