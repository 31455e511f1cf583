"""Both stores, with the few things a test must do behind their backs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from agentapi import Settings, load_settings
from agentapi.conversation.messages import AssistantMessage, ToolCall, ToolMessage, UserMessage
from agentapi.conversation.window import Window
from agentapi.ids import create_turn_id, partition_of
from agentapi.redis.connection import connect
from agentapi.redis.keys import conversation_keys, turn_keys
from agentapi.stores import (
    Accepted,
    Claim,
    Ending,
    InMemoryTurnStore,
    Lease,
    RedisTurnStore,
    TurnStore,
    Wakeup,
)
from agentapi.turns import ModelStep, NewTurn, ToolStep, TurnStatus
from agentapi.urls import is_cluster

C = "user:1"


@dataclass
class Bench:
    """A store under test."""

    store: TurnStore
    settings: Settings
    expire_lease: Callable[[str], None]
    overdue_now: Callable[..., None]
    has_due: Callable[[str], bool]
    lose: Callable[[str], None]
    """A turn's hash vanishes: a failover, an eviction, a deletion by hand."""
    forget: Callable[[str], None]
    """A conversation's idle time is over."""

    def enqueue(self, conversation_id: str = C, message: str = "hi", **more: Any) -> str:
        """Accept a turn; returns its id."""
        turn_id = more.pop("turn_id", None) or create_turn_id(conversation_id)
        new = NewTurn(
            turn_id=turn_id, conversation_id=conversation_id, agent="a", input=message, **more
        )
        [answer] = self.store.enqueue([new])
        if not isinstance(answer, Accepted):
            raise answer
        return turn_id

    def claim(self, turn_id: str, conversation_id: str = C, **more: Any) -> Claim:
        """A claim that must be won."""
        claim = self.try_claim(turn_id, conversation_id, **more)
        assert isinstance(claim, Claim), claim
        return claim

    def try_claim(self, turn_id: str, conversation_id: str = C, **more: Any) -> Any:
        """A claim, won or not."""
        more.setdefault("token", uuid.uuid4().hex)
        more.setdefault("owner", "w")
        more.setdefault("isolated", True)
        more.setdefault("window", Window(messages=None))
        return self.store.claim(conversation_id, turn_id, **more)

    def complete(self, lease: Lease, said: str = "hi", reply: str = "yo") -> Wakeup | None:
        """Commit a turn of two messages."""
        return self.store.commit(lease, completed(lease.turn_id, said, reply))


def beside(conversation_id: str) -> str:
    """Another conversation of the same partition."""
    names = (f"{conversation_id}:{number}" for number in count())
    return next(n for n in names if partition_of(n) == partition_of(conversation_id))


def completed(turn_id: str, said: str = "hi", reply: str = "yo") -> Ending:
    return Ending(
        status=TurnStatus.COMPLETED,
        messages=[
            UserMessage(content=said, turn_id=turn_id),
            AssistantMessage(content=reply, turn_id=turn_id),
        ],
        steps=1,
    )


def model_step(identifier: str = "c1") -> ModelStep:
    call = ToolCall(id=identifier, name="look", arguments={})
    return ModelStep(message=AssistantMessage(content="", tool_calls=(call,)))


def tool_step(identifier: str = "c1") -> ToolStep:
    return ToolStep(message=ToolMessage(call_id=identifier, name="look", content="seen"))


def in_memory(**overrides: Any) -> Bench:
    settings = load_settings(**overrides)
    store = InMemoryTurnStore(settings)

    def expire(conversation_id: str) -> None:
        lease = store._state.conversations[conversation_id].lease
        assert lease is not None
        lease.expires = 0

    def overdue(conversation_id: str, since: float = 0.001) -> None:
        store._state.conversations[conversation_id].due = store._state.now() - since

    def has_due(conversation_id: str) -> bool:
        conversation = store._state.conversations.get(conversation_id)
        return conversation is not None and conversation.due is not None

    def lose(turn_id: str) -> None:
        del store._state.turns[turn_id]

    def forget(conversation_id: str) -> None:
        del store._state.conversations[conversation_id]

    return Bench(store, settings, expire, overdue, has_due, lose, forget)


def on_redis(url: str, **overrides: Any) -> Bench:
    if is_cluster(url):
        overrides.setdefault("broker_url", "memory://")
        # Six servers take their time on a machine that is busy.
        overrides.setdefault("redis_timeout", 30)
    settings = load_settings(redis_url=url, **overrides)
    client = connect(settings)

    def expire(conversation_id: str) -> None:
        client.hset(conversation_keys(conversation_id).lease, "expires", 0)

    def overdue(conversation_id: str, since: float = 0.001) -> None:
        due = int((time.time() - since) * 1000)
        client.zadd(conversation_keys(conversation_id).due, {conversation_id: due})

    def has_due(conversation_id: str) -> bool:
        return client.zscore(conversation_keys(conversation_id).due, conversation_id) is not None

    def lose(turn_id: str) -> None:
        client.delete(turn_keys(turn_id).turn)

    def forget(conversation_id: str) -> None:
        keys = conversation_keys(conversation_id)
        client.delete(keys.meta, keys.messages, keys.blobs)

    store = RedisTurnStore(settings)
    return Bench(store, settings, expire, overdue, has_due, lose, forget)
