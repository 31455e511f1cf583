"""Arguments and answers that many scripts share."""

from __future__ import annotations

from typing import Final

from agentapi.redis.keys import ConversationKeys, TurnKeys
from agentapi.stores.lease import Wakeup
from agentapi.turns import TERMINAL

ENDED: Final = frozenset(status.value.encode() for status in TERMINAL)
"""The statuses of turns that have ended, as they are stored."""


def all_keys(keys: ConversationKeys, turn: TurnKeys) -> list[str]:
    """The keys of a script that may end a turn, in the script's order."""
    return [
        *(turn.turn, keys.inbox, keys.lease, keys.meta, keys.messages),
        *(turn.journal, turn.events, keys.due, turn.calls),
    ]


def wakeup_of(conversation_id: str, turn_id: bytes, agent: bytes) -> Wakeup | None:
    """The wake-up in a script's answer; None if it names no turn."""
    if not turn_id:
        return None
    return Wakeup(conversation_id=conversation_id, turn_id=turn_id.decode(), agent=agent.decode())


def milliseconds(seconds: float) -> int:
    """Seconds converted to the milliseconds that scripts take."""
    return round(seconds * 1000)


def moment(seconds: float | None) -> int | None:
    """A time in milliseconds; None if there is none."""
    return None if seconds is None else milliseconds(seconds)
