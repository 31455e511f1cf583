"""Turns that are not to be stored: their messages never enter the history, and they expire."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from agentapi.conversation.messages import AssistantMessage, Message, UserMessage
from agentapi.errors import TurnNotFound
from agentapi.redis.keys import conversation_keys, turn_keys
from agentapi.stores import FROM_START, Accepted, Ending
from agentapi.turns import NewTurn, OnAbort, OnBusy, RequestOptions, TurnStatus
from agentapi.turns.model import TurnError
from tests.conformance.conftest import MakeBench
from tests.conformance.stores import Bench, C, model_step, on_redis
from tests.faults import until

UNSTORED = RequestOptions(store=False)


def said(bench: Bench) -> list[str]:
    return [message.content for message in bench.store.history(C)]


def test_its_reply_can_be_read_and_is_in_no_history(bench: Bench) -> None:
    kept = bench.enqueue(message="kept")
    turn_id = bench.enqueue(message="secret", options=UNSTORED)
    bench.complete(bench.claim(kept).lease, "kept", "yo")
    claim = bench.claim(turn_id)
    # It knows what was said before.
    assert [m.content for m in claim.history] == ["kept", "yo"]
    wakeup = bench.complete(claim.lease, "secret", "reply")
    assert wakeup is None
    turn = bench.store.turn(turn_id)
    assert (turn.status, turn.text, turn.stored) == (TurnStatus.COMPLETED, "reply", False)
    assert [m.content for m in turn.messages] == ["secret", "reply"]
    assert said(bench) == ["kept", "yo"]
    # A repeat of the commit, whose answer was lost, changes nothing.
    assert bench.complete(claim.lease, "secret", "reply") is None
    assert said(bench) == ["kept", "yo"]
    behind = bench.enqueue(message="behind")
    assert [m.content for m in bench.claim(behind).history] == ["kept", "yo"]


def test_what_an_aborted_turn_would_keep(bench: Bench) -> None:
    turn_id = bench.enqueue(options=UNSTORED, on_abort=OnAbort.KEEP)
    messages: list[Message] = [UserMessage(content="hi"), AssistantMessage(content="half")]
    error = TurnError(code="x", message="y")
    bench.store.commit(
        bench.claim(turn_id).lease,
        Ending(status=TurnStatus.FAILED, messages=messages, error=error),
    )
    assert said(bench) == []
    # Nothing was kept, so the turn may be retried.
    bench.store.retry(turn_id, "again")
    bench.complete(bench.claim(turn_id).lease)
    assert bench.store.turn(turn_id).status is TurnStatus.COMPLETED
    assert said(bench) == []


def test_it_merges_only_with_its_like(make_bench: MakeBench) -> None:
    bench = make_bench()
    first = bench.enqueue(message="one", options=UNSTORED)

    def merged(options: RequestOptions | None) -> bool:
        turn = NewTurn(
            turn_id=first[:4] + "0" * 31 + ("1" if options else "2"),
            conversation_id=C,
            agent="a",
            input="two",
            options=options,
            on_busy=OnBusy.MERGE,
        )
        [answer] = bench.store.enqueue([turn])
        assert isinstance(answer, Accepted)
        return answer.turn_id == first

    assert merged(UNSTORED)
    assert not merged(None)


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "expired"])
def test_redis_forgets_it(redis_url: str, how: str) -> None:
    bench = on_redis(redis_url, unstored_retention=0.3)
    more: dict[str, Any] = {"deadline_at": 1.0} if how == "expired" else {}
    turn_id = bench.enqueue(message="secret words", options=UNSTORED, idle_time=0.3, **more)
    if how == "expired":
        bench.store.expire(turn_id)
    elif how == "cancelled":
        bench.store.cancel(turn_id)
    else:
        lease = bench.claim(turn_id).lease
        bench.store.record(lease, 0, model_step())
        ending = Ending(status=TurnStatus(how), messages=[UserMessage(content="secret words")])
        bench.store.commit(lease, ending)
    # Whoever looks at the turn itself may be too late.
    assert [end.turn_id for end in bench.store.lists.ends(FROM_START, 9).ends] == [turn_id]
    with redis.Redis.from_url(redis_url) as client:
        turn, conversation = turn_keys(turn_id), conversation_keys(C)
        keys = [turn.turn, turn.events, turn.journal, turn.calls, f"{turn.turn}:blobs"]
        keys += [conversation.messages, conversation.meta, conversation.blobs]
        until(lambda: client.exists(*keys) == 0, what="the end of all that it left")
    with pytest.raises(TurnNotFound):
        bench.store.turn(turn_id)
    bench.store.close()


def test_other_turns_are_kept_as_long_as_before(redis_url: str) -> None:
    bench = on_redis(redis_url, unstored_retention=1, turn_retention=100)
    turn_id = bench.enqueue()
    bench.complete(bench.claim(turn_id).lease)
    with redis.Redis.from_url(redis_url) as client:
        assert 90 < client.ttl(turn_keys(turn_id).turn) <= 100
    bench.store.close()
