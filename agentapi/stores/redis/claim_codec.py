"""Reads the answer of claim.lua."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentapi.conversation.messages import loads
from agentapi.errors import UnreadableRecord
from agentapi.stores.answers import (
    Claim,
    ClaimCause,
    LostClaim,
    Refusal,
    RefusalReason,
    Unreadable,
)
from agentapi.stores.lease import Lease
from agentapi.stores.redis.calls_codec import call_book
from agentapi.stores.redis.codec import (
    answering_from,
    calibration_from,
    contexts_from,
    pairs,
    spent_from,
    summary_from,
    turn_from_hash,
)
from agentapi.turns import Turn, step_from_json

_LONGEST_NUMBER: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimCall:
    """A call of claim.lua: what it claims."""

    conversation_id: str
    turn_id: str
    token: str

    def answer(self, reply: Sequence[Any]) -> Claim | Unreadable | Refusal:
        """Read the script's answer. An unreadable record never loses an acquired lease."""
        if reply[0] == b"refused":
            return Refusal(reason=RefusalReason(reply[1].decode()), turn=self._shown(reply[2]))
        found = {reply[i].decode(): reply[i + 1] for i in range(1, len(reply), 2)}
        fields = pairs(found["turn"])
        lease = Lease(
            conversation_id=self.conversation_id,
            turn_id=self.turn_id,
            epoch=int(found["epoch"]),
            token=self.token,
            generation=_number(found["generation"]),
        )
        turn = None
        try:
            turn = turn_from_hash(self.turn_id, fields)
            return _claim(lease, turn, found)
        except UnreadableRecord as error:
            return Unreadable(
                lease=lease,
                error=error,
                turn=turn,
                attempt=int(found["attempt"]),
                deferrals=_number(fields.get("deferrals", b"0")),
            )

    def _shown(self, fields: Sequence[bytes]) -> Turn | None:
        try:
            return turn_from_hash(self.turn_id, pairs(fields)) if fields else None
        except UnreadableRecord:
            return None


def _number(value: bytes) -> int:
    """A number, or 0 for anything else: a broken record must not prevent a turn from ending."""
    return int(value) if value.isdigit() and len(value) < _LONGEST_NUMBER else 0


def _claim(lease: Lease, turn: Turn, found: Mapping[str, Any]) -> Claim:
    return Claim(
        lease=lease,
        turn=turn,
        steps=[step_from_json(step) for step in found["journal"]],
        history=[loads(message) for message in found["messages"]],
        calls=call_book(pairs(found["calls"]), lease.epoch),
        answering=answering_from(found["answering"]),
        spent=spent_from(found["spent"]),
        summary=summary_from(found["summary"], found["total"]),
        calibration=calibration_from(found["calibration"]),
        contexts=contexts_from(found["contexts"]),
        now=int(found["now"]) / 1000,
        cause=ClaimCause(found["cause"].decode()) if found["cause"] else None,
        waited=_number(found["waited"]) / 1000 if found["waited"] else None,
        lost=_lost(*found["lost"]) if found["lost"] else None,
    )


def _lost(at: bytes | None, worker: bytes | None) -> LostClaim:
    return LostClaim(
        at=_number(at) / 1000 if at else None,
        worker=worker.decode(errors="replace") if worker else None,
    )
