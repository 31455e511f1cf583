"""What a conversation has learned of its models' contexts, on both stores."""

from __future__ import annotations

from dataclasses import replace

from agentapi.stores import Ending
from agentapi.turns import TurnError, TurnStatus
from tests.conformance.stores import Bench, C, completed

KNOWN = {"openai:gpt-5": 9000, "gemini:flash": 500}


def end(bench: Bench, contexts: dict[str, int] | None) -> None:
    turn_id = bench.enqueue()
    lease = bench.claim(turn_id).lease
    # Twice, as when the first answer was lost.
    for _ in range(2):
        bench.store.commit(lease, replace(completed(turn_id), contexts=contexts))


def known(bench: Bench) -> dict[str, int]:
    turn_id = bench.enqueue()
    claim = bench.claim(turn_id)
    bench.store.commit(claim.lease, Ending(status=TurnStatus.CANCELLED))
    return dict(claim.contexts)


def test_a_conversation_remembers_until_it_learns_more(bench: Bench) -> None:
    assert known(bench) == {}
    end(bench, KNOWN)
    assert known(bench) == KNOWN
    end(bench, None)
    assert known(bench) == KNOWN
    end(bench, {"openai:gpt-5": 100})
    assert known(bench) == {"openai:gpt-5": 100}


def test_a_reset_forgets(bench: Bench) -> None:
    end(bench, KNOWN)
    running = bench.enqueue()
    lease = bench.claim(running).lease
    bench.store.reset(C)
    # A turn of the old history does not teach the new one.
    bench.store.commit(lease, replace(completed(running), contexts=KNOWN))
    assert known(bench) == {}


def test_a_turn_without_a_reply_teaches_nothing_by_itself(bench: Bench) -> None:
    turn_id = bench.enqueue()
    error = TurnError(code="context_too_long", message="x", status=400)
    ending = Ending(status=TurnStatus.FAILED, error=error)
    bench.store.commit(bench.claim(turn_id).lease, ending)
    assert known(bench) == {}
    assert bench.store.turn(turn_id).error == error
    [*_, last] = bench.store.events({turn_id: -1}, 0)[turn_id]
    assert last.data == {"code": "context_too_long", "message": "x", "status": 400}
