"""Turns that no worker ends: cancelled, expired; and failed ones that begin again."""

from __future__ import annotations

from typing import cast

import orjson
import redis

from agentapi.errors import TurnNotFound
from agentapi.redis.connection import translate_errors
from agentapi.redis.keys import conversation_keys, turn_keys
from agentapi.redis.scripts import Scripts
from agentapi.settings import Settings
from agentapi.stores.answers import Cancellation, CancelOutcome, Ending
from agentapi.stores.lease import Wakeup
from agentapi.stores.redis.codec import ending_event, outcome_to_json
from agentapi.stores.redis.histories import RedisHistories
from agentapi.stores.redis.values import all_keys, milliseconds, wakeup_of
from agentapi.stores.refusals import (
    already_kept,
    busy,
    missed_deadline,
    no_turn,
    not_failed,
    other_tenant,
    unexpected,
)
from agentapi.turns import TurnError, TurnStatus


class RedisEndings(RedisHistories):
    """The part of the `TurnStore` that ends turns without their worker."""

    def __init__(self, settings: Settings, client: redis.Redis, scripts: Scripts) -> None:
        super().__init__(settings, client, scripts)
        self._grace = milliseconds(settings.dispatch_grace)
        self._retentions = (
            milliseconds(settings.turn_retention),
            milliseconds(settings.events_retention),
        )

    def cancel(self, turn_id: str) -> Cancellation:
        """See `TurnStore.cancel`."""
        turn_id, conversation_id = self._joined(turn_id)
        keys, turn = conversation_keys(conversation_id), turn_keys(turn_id)
        reply = self._call(
            "cancel",
            all_keys(keys, turn),
            [
                turn_id,
                conversation_id,
                self._grace,
                *self._retentions,
                keys.turns,
            ],
        )
        match reply:
            case [b"missing"]:
                raise no_turn(turn_id)
            case [outcome, *wake]:
                return Cancellation(
                    outcome=CancelOutcome(outcome.decode()),
                    wakeup=wakeup_of(conversation_id, *wake) if wake else None,
                )
            case _:
                raise unexpected("cancel", reply)

    def retry(self, turn_id: str, operation: str) -> Wakeup | None:
        """See `TurnStore.retry`."""
        turn_id, conversation_id = self._joined(turn_id)
        keys, turn = conversation_keys(conversation_id), turn_keys(turn_id)
        reply = self._call(
            "retry",
            [
                turn.turn,
                keys.inbox,
                keys.meta,
                keys.messages,
                keys.due,
                turn.journal,
                turn.events,
                turn.calls,
            ],
            [
                turn_id,
                conversation_id,
                operation,
                self._settings.inbox_limit,
                self._grace,
                milliseconds(self._settings.memory_ttl or 0),
            ],
        )
        match reply:
            case [b"queued", head, agent]:
                return wakeup_of(conversation_id, turn_id.encode(), agent) if head else None
            case [b"refused", status]:
                raise not_failed(turn_id, status.decode())
            case [b"kept"]:
                raise already_kept(turn_id)
            case [b"busy", length]:
                raise busy(conversation_id, length)
            case [b"tenant"]:
                raise other_tenant(conversation_id)
            case [b"missing"]:
                raise no_turn(turn_id)
            case _:
                raise unexpected("retry", reply)

    def expire(self, turn_id: str) -> Wakeup | None:
        """See `TurnStore.expire`."""
        try:
            turn_id, conversation_id = self._joined(turn_id)
        except TurnNotFound:
            return None
        keys, turn = conversation_keys(conversation_id), turn_keys(turn_id)
        error = missed_deadline()
        ending = Ending(
            status=TurnStatus.FAILED, error=TurnError(code=error.code, message=str(error))
        )
        reply = self._call(
            "expire",
            all_keys(keys, turn),
            [
                turn_id,
                conversation_id,
                self._grace,
                *self._retentions,
                keys.turns,
                outcome_to_json(ending),
                orjson.dumps(ending_event(ending)),
            ],
        )
        match reply:
            case [b"expired", *wake]:
                return wakeup_of(conversation_id, *wake)
            case [b"left"]:
                return None
            case _:
                raise unexpected("expire", reply)

    def _joined(self, turn_id: str) -> tuple[str, str]:
        """The turn, or the one that its message joined; and the conversation."""
        for _ in range(2):
            with translate_errors(self._settings.redis_url):
                found = self._client.hmget(turn_keys(turn_id).turn, ["conversation", "into"])
            conversation, joined = cast("list[bytes | None]", found)
            if conversation is not None:
                return turn_id, conversation.decode()
            if joined is None:
                break
            turn_id = joined.decode()
        raise no_turn(turn_id)
