"""What a turn costs Redis does not grow with its conversation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from agentapi import Settings
from agentapi.conversation.messages import AssistantMessage, UserMessage, dumps
from agentapi.conversation.window import Window
from agentapi.ids import create_turn_id
from agentapi.redis.keys import conversation_keys
from agentapi.stores import Claim, RedisTurnStore
from agentapi.turns import NewTurn


@pytest.mark.parametrize(
    "window", [Window(messages=50), Window(messages=None, tokens=500)], ids=str
)
def test_a_claim_reads_the_window_only(
    settings_for: Callable[..., Settings], window: Window
) -> None:
    settings = settings_for()
    client = redis.Redis.from_url(settings.redis_url)
    store = RedisTurnStore(settings)
    costs = [cost(client, store, length, window) for length in (200, 10_000)]
    assert costs[0] == costs[1]
    store.close()
    client.close()


def cost(
    client: redis.Redis, store: RedisTurnStore, length: int, window: Window
) -> tuple[int, int, int]:
    """Reads of the history, bytes sent for them, and messages of a claim."""
    conversation_id = f"c:{length}"
    said = [dumps(UserMessage(content="x" * 80)), dumps(AssistantMessage(content="y" * 80))]
    client.rpush(conversation_keys(conversation_id).messages, *(said * (length // 2)))
    turn_id = create_turn_id(conversation_id)
    new = NewTurn(turn_id=turn_id, conversation_id=conversation_id, agent="a", input="hi")
    store.enqueue([new])
    before = client.info("commandstats").get("cmdstat_lrange", {"calls": 0})["calls"]
    claim = store.claim(conversation_id, turn_id, owner="w", token=turn_id, window=window)
    after = client.info("commandstats")["cmdstat_lrange"]["calls"]
    assert isinstance(claim, Claim)
    size = sum(len(dumps(message)) for message in claim.history)
    return after - before, size, len(claim.history)
