"""Ends that hooks are to be told of: taken, told, tried again, given up."""

from __future__ import annotations

import time
from collections.abc import Sequence

from agentapi.ids import partition_of
from agentapi.stores import Ending, Telling, UntoldEnd
from agentapi.stores.telling import MOST_FAILURES
from agentapi.turns import TurnStatus
from tests.conformance.stores import Bench, C

P = partition_of(C)


def take(
    bench: Bench,
    agents: Sequence[str] = ("a",),
    *,
    call: str = "one",
    seconds: float = 60,
    most: int = 10,
) -> list[str]:
    return [end.end_id for end in taken(bench, agents, call=call, seconds=seconds, most=most)]


def taken(
    bench: Bench,
    agents: Sequence[str] = ("a",),
    *,
    call: str = "one",
    seconds: float = 60,
    most: int = 10,
) -> Sequence[UntoldEnd]:
    return bench.store.hooks.tell(P, agents, call=call, seconds=seconds, most=most)


def ended(bench: Bench) -> str:
    turn_id = bench.enqueue()
    bench.complete(bench.claim(turn_id).lease)
    return f"{turn_id}:{bench.store.turn(turn_id).last_event}"


def test_nothing_is_kept_while_no_worker_has_a_hook(bench: Bench) -> None:
    ended(bench)
    assert bench.store.hooks.untold() == []
    bench.store.hooks.expect(["b"], 60)
    ended(bench)
    assert bench.store.hooks.untold() == []


def test_an_end_is_taken_once_and_told(bench: Bench) -> None:
    bench.store.hooks.expect(["a"], 60)
    first, second = ended(bench), ended(bench)
    assert bench.store.hooks.untold() == [P]
    assert sorted(take(bench)) == sorted([first, second])
    assert sorted(take(bench)) == sorted([first, second]), "the same call, repeated"
    assert take(bench, call="two") == []
    assert bench.store.hooks.untold() == []
    for end in taken(bench):
        assert end.turn is not None
        assert (end.turn.status, end.turn.text, end.agent) == (TurnStatus.COMPLETED, "yo", "a")
        assert bench.store.hooks.told(end, failed=False, call=end.end_id) is Telling.TOLD
        assert bench.store.hooks.told(end, failed=False, call=end.end_id) is Telling.TOLD


def test_an_end_whose_taker_is_silent_is_taken_again(bench: Bench) -> None:
    bench.store.hooks.expect(["a"], 60)
    end = ended(bench)
    assert take(bench, seconds=0.001) == [end]
    time.sleep(0.005)
    assert bench.store.hooks.untold() == [P]
    assert take(bench, call="two") == [end]


def test_an_end_that_is_held_is_kept_from_others(bench: Bench) -> None:
    bench.store.hooks.expect(["a"], 60)
    ended(bench)
    [end] = taken(bench, seconds=0.001)
    bench.store.hooks.hold([end], 60)
    time.sleep(0.005)
    assert bench.store.hooks.untold() == []
    bench.store.hooks.told(end, failed=False, call="told")
    bench.store.hooks.hold([end], 0)
    assert bench.store.hooks.untold() == []


def test_no_more_are_taken_than_asked_for(bench: Bench) -> None:
    bench.store.hooks.expect(["a"], 60)
    ends = {ended(bench) for _ in range(5)}
    first = take(bench, most=2)
    second = take(bench, call="two", most=10)
    assert len(first) == 2
    assert set(first) | set(second) == ends


def test_an_end_of_another_agent_stays_while_a_worker_has_its_hook(bench: Bench) -> None:
    bench.store.hooks.expect(["a"], 60)
    end = ended(bench)
    assert take(bench, ["b"]) == []
    assert take(bench, call="two") == [end]


def test_an_end_whose_hook_is_gone_is_forgotten(bench: Bench) -> None:
    bench.store.hooks.expect(["a"], 0.02)
    ended(bench)
    time.sleep(0.03)
    assert take(bench, ["b"]) == []
    assert bench.store.hooks.untold() == []


def test_an_end_that_was_taken_back_is_forgotten(bench: Bench) -> None:
    bench.store.hooks.expect(["a"], 60)
    turn_id = bench.enqueue()
    bench.store.commit(bench.claim(turn_id).lease, Ending(status=TurnStatus.FAILED))
    bench.store.retry(turn_id, "op")
    assert take(bench) == []
    bench.complete(bench.claim(turn_id).lease)
    assert take(bench, call="two") == [f"{turn_id}:{bench.store.turn(turn_id).last_event}"]


def test_a_hook_that_keeps_failing_is_given_up(bench: Bench) -> None:
    bench.store.hooks.expect(["a"], 60)
    ended(bench)
    [end] = taken(bench)
    for number in range(1, MOST_FAILURES):
        assert bench.store.hooks.told(end, failed=True, call=str(number)) is Telling.AGAIN
        assert bench.store.hooks.told(end, failed=True, call=str(number)) is Telling.AGAIN
        assert bench.store.hooks.untold() == []
    assert bench.store.hooks.told(end, failed=True, call="last") is Telling.GIVEN_UP
    assert bench.store.hooks.told(end, failed=True, call="last") is Telling.GIVEN_UP
    assert bench.store.hooks.told(end, failed=True, call="later") is Telling.TOLD


def test_a_failure_of_a_turn_that_is_gone(bench: Bench) -> None:
    bench.store.hooks.expect(["a"], 60)
    ended(bench)
    [end] = taken(bench)
    bench.lose(end.turn_id)
    assert bench.store.hooks.told(end, failed=True, call="x") is Telling.TOLD
