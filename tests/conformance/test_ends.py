"""The ends of turns: each is told, in the order of its conversation, from any position."""

from __future__ import annotations

import threading
import time

from agentapi.stores import FROM_START, Ending, TurnEnd
from agentapi.turns import TurnError, TurnStatus
from tests.conformance.stores import Bench


def complete(bench: Bench, conversation: str = "c") -> str:
    turn_id = bench.enqueue(conversation)
    bench.complete(bench.claim(turn_id, conversation).lease)
    return turn_id


def read(bench: Bench, after: str | float | None = FROM_START, limit: int = 1000) -> list[TurnEnd]:
    found: list[TurnEnd] = []
    while True:
        ends = bench.store.lists.ends(after, limit)
        found += ends.ends
        after = ends.position
        if not ends.ends:
            return found


def test_every_kind_of_end_is_told(bench: Bench) -> None:
    done = complete(bench)
    failed = bench.enqueue("f", user_id="ann", tenant_id="acme")
    error = TurnError(code="broken", message="what users said")
    lease = bench.claim(failed, "f").lease
    bench.store.commit(lease, Ending(status=TurnStatus.FAILED, error=error))
    cancelled = bench.enqueue("x")
    bench.store.cancel(cancelled)
    late = bench.enqueue("d", deadline_at=1.0)
    bench.store.expire(late)
    by_status = {end.turn_id: end for end in read(bench)}
    assert {t: (end.status.value, end.error_code) for t, end in by_status.items()} == {
        done: ("completed", None),
        failed: ("failed", "broken"),
        cancelled: ("cancelled", None),
        late: ("failed", "deadline"),
    }
    end = by_status[failed]
    assert (end.conversation_id, end.agent, end.user_id, end.tenant_id) == ("f", "a", "ann", "acme")
    assert abs(end.ended_at - time.time()) < 60
    assert "users said" not in repr(end)
    assert all(each.id == f"{t}:{bench.store.turn(t).last_event}" for t, each in by_status.items())


def test_a_turn_that_is_retried_ends_again(bench: Bench) -> None:
    turn_id = bench.enqueue()
    bench.store.commit(bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED))
    bench.store.retry(turn_id, "op")
    bench.complete(bench.claim(turn_id).lease)
    first, second = read(bench)
    assert [first.status, second.status] == [TurnStatus.FAILED, TurnStatus.COMPLETED]
    assert first.turn_id == second.turn_id == turn_id
    assert first.id != second.id


def test_a_conversation_keeps_its_order_and_every_position_continues(bench: Bench) -> None:
    done = [complete(bench, f"c:{number % 3}") for number in range(30)]
    everything = read(bench, limit=4)
    assert sorted(end.turn_id for end in everything) == sorted(done)
    for name in ("c:0", "c:1", "c:2"):
        of_one = [end.turn_id for end in everything if end.conversation_id == name]
        assert of_one == [turn_id for turn_id in done if turn_id in of_one]
    for number, end in enumerate(everything):
        rest = sorted(each.id for each in read(bench, end.position))
        assert rest == sorted(each.id for each in everything[number + 1 :])


def test_from_now_and_from_a_time(bench: Bench) -> None:
    before = time.time()
    complete(bench)
    now = bench.store.lists.ends(None, 10)
    assert now.ends == []
    second = complete(bench)
    assert [end.turn_id for end in read(bench, now.position)] == [second]
    assert len(read(bench, before - 1)) == 2
    assert read(bench, time.time() + 60) == []


def test_a_reader_waits_for_the_next_end(bench: Bench) -> None:
    after = bench.store.lists.ends(None, 10).position
    found: list[TurnEnd] = []

    def wait() -> None:
        ends = bench.store.lists.ends(after, 10, timeout=60.0)
        found.extend(ends.ends)

    reader = threading.Thread(target=wait)
    reader.start()
    done = complete(bench)
    reader.join(timeout=60)
    assert [end.turn_id for end in found] == [done]
