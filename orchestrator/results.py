"""How a turn ended, and its remaining events. Used by handles for threads and for asyncio."""

from __future__ import annotations

from typing import Any

from agentapi.conversation.finish import FinishReason
from agentapi.errors import (
    StoreUnavailable,
    TurnCancelled,
    TurnFailed,
    TurnNotFound,
    TurnTimeout,
)
from agentapi.stores import TurnStore
from agentapi.turns import Event, Turn, TurnResult, TurnStatus


def result_of(turn: Turn, output: Any = None) -> TurnResult[Any]:
    """The result of an ended turn.

    Args:
        turn: The turn.
        output: Its typed reply.

    Raises:
        TurnFailed: It failed.
        TurnCancelled: It was cancelled.
    """
    raise_if_failed(turn)
    return TurnResult(
        text=turn.text or "",
        messages=turn.messages,
        usage=turn.usage,
        steps=turn.steps,
        agent=turn.answered_by or turn.agent,
        output=output,
        finish_reason=turn.finish_reason or FinishReason.STOP,
    )


def raise_if_failed(turn: Turn) -> None:
    """Raise the error of a turn that did not complete.

    Raises:
        TurnFailed: It failed.
        TurnCancelled: It was cancelled.
        TurnNotFound: It has not ended; for example, it has just been retried.
    """
    match turn.status:
        case TurnStatus.COMPLETED:
            return
        case TurnStatus.CANCELLED:
            raise TurnCancelled(
                f"turn {turn.turn_id} was cancelled", turn_id=turn.turn_id, error_code="cancelled"
            )
        case TurnStatus.FAILED:
            code = turn.error.code if turn.error else "internal"
            why = turn.error.message if turn.error else "no reason was stored"
            raise TurnFailed(
                f"turn {turn.turn_id} failed ({code}): {why}",
                turn_id=turn.turn_id,
                error_code=code,
            )
        case _:
            raise TurnNotFound(f"turn {turn.turn_id} has not ended")


def past_events(store: TurnStore, turn_id: str, after: int) -> tuple[list[Event], bool]:
    """The events stored so far, and whether more will come.

    The events of a turn that ended long ago are deleted, so readers must not wait for them.

    Raises:
        TurnNotFound: The turn was deleted.
        StoreUnavailable: Redis is out of reach.
    """
    past = store.events({turn_id: after}, 0).get(turn_id, [])
    if past and past[-1].type.ends:
        return past, False
    if not store.turn(turn_id).status.ended:
        return past, True
    # The turn may have ended between the two reads.
    seen = past[-1].number if past else after
    past += store.events({turn_id: seen}, 0).get(turn_id, [])
    return past, False


def last_events(store: TurnStore, turn_id: str, after: int) -> list[Event] | None:
    """The remaining events of an ended turn; None if it has not ended or Redis is out of reach.

    Raises:
        TurnNotFound: The turn was deleted.
    """
    try:
        past, more = past_events(store, turn_id, after)
    except StoreUnavailable:
        return None
    return None if more else past


def still_running(turn_id: str) -> TurnTimeout:
    """The error of a wait that ended before the turn did."""
    return TurnTimeout(
        f"turn {turn_id} has not ended within the timeout and continues: wait again with a longer "
        "timeout, or cancel() it. `agentapi doctor` shows whether workers are running"
    )
