"""Responses whose turns are in the archive, with the real `openai` client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import openai
import pytest
import redis

from agentapi.ids import partition_of_turn
from agentapi.redis.keys import turn_keys
from agentapi.stores import RedisTurnStore
from agentapi.stores.redis import turn_archiving
from tests.faults import until
from tests.gateway.conftest import Served

ECHO = '/echo {"text": "hi"}'
ASKED = "What did I say?"

Move = Callable[[str], None]


@pytest.fixture
def move(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Move]:
    """Moves the turn of a response to the archive, even if somebody has just read it."""
    monkeypatch.setattr(turn_archiving, "REST", 0.0)
    settings = served.stack.settings.model_copy(update={"archive_turns_after": 0.001})
    with (
        closing(RedisTurnStore(settings)) as store,
        redis.Redis.from_url(settings.redis_url) as client,
    ):
        assert store.archiving is not None
        turns = store.archiving.turns

        def move(response_id: str) -> None:
            digits = response_id.removeprefix("resp_")
            turn_id = f"{digits[:3]}-{digits[3:]}"
            # As if they had expired.
            client.delete(turn_keys(turn_id).events)

            def gone() -> bool:
                turns.begin()
                turns.move_some([partition_of_turn(turn_id)])
                return not client.exists(turn_keys(turn_id).turn)

            until(gone, what="the move")

        yield move


def test_a_response_in_the_archive_is_one_like_any_other(client: openai.OpenAI, move: Move) -> None:
    first = client.responses.create(model="tools", input=ECHO)
    items = client.responses.input_items.list(first.id).data
    move(first.id)
    assert client.responses.retrieve(first.id) == first
    move(first.id)
    assert client.responses.input_items.list(first.id).data == items
    move(first.id)
    second = client.responses.create(model="tools", input=ASKED, previous_response_id=first.id)
    assert second.output_text == f"You said 1 thing: {ECHO}"
    # Another answer to the first one, whose conversation has gone on.
    move(first.id)
    other = client.responses.create(model="tools", input=ASKED, previous_response_id=first.id)
    assert other.output_text == second.output_text
    move(first.id)
    move(second.id)
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    assert client.responses.retrieve(second.id) == second
