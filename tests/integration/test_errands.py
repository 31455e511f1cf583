"""A worker dies between what it did in one partition and what it owes another: the sweep pays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from agentapi.stores import ErrandKind
from agentapi.turns import Turn, TurnStatus
from tests.integration.fleet import Fleet
from workers.errands import Errands
from workers.outage import Outage
from workers.upkeep.sweeper import Sweeper

MakeFleet = Callable[..., Fleet]


def sweeper_of(fleet: Fleet) -> Sweeper:
    settings, store, dispatcher = fleet.app.settings, fleet.app.store, fleet.app.dispatcher
    errands = Errands(settings=settings, store=store, dispatcher=dispatcher)
    return Sweeper(settings, store, dispatcher, errands, Outage())


@pytest.fixture
def fleet(make_fleet: MakeFleet) -> Fleet:
    return make_fleet(dispatch_grace=0.05, sweep_interval=60)


def test_the_sweep_keeps_the_deadline_of_a_turn_that_waits(fleet: Fleet) -> None:
    """Its head waits for a person who does not come, so no worker will ever begin it."""
    head = lead(fleet, "hi")
    behind = fleet.enqueue("napper", "hi", conversation_id=head.conversation_id, deadline=0.05)
    sweeper = sweeper_of(fleet)
    while fleet.turn(behind).status is TurnStatus.QUEUED:
        sweeper.sweep()
    assert fleet.turn(behind).status is TurnStatus.FAILED
    error = fleet.turn(behind).error
    assert error is not None
    assert error.code == "deadline"
    assert fleet.turn(head).status is TurnStatus.PARKED


@pytest.fixture
def dies_before_errands(monkeypatch: pytest.MonkeyPatch) -> set[ErrandKind]:
    """Kinds of errands that no worker lives to carry out."""
    deadly: set[ErrandKind] = set()
    live = Errands.of_turn

    def of_turn(self: Errands, kind: ErrandKind, turn_id: str) -> None:
        if kind not in deadly:
            live(self, kind, turn_id)

    monkeypatch.setattr(Errands, "of_turn", of_turn)
    return deadly


def lead(fleet: Fleet, *messages: str) -> Turn:
    text = f"/ask_nappers {json.dumps({'messages': messages})}"
    turn = fleet.enqueue("lead", text)
    assert fleet.execute(turn)["status"] == "parked"
    return turn


def sent(fleet: Fleet) -> list[Turn]:
    """The turns that were woken since this was last asked."""
    turns = [fleet.app.store.turn(wakeup.turn_id) for wakeup in fleet.sent]
    fleet.sent.clear()
    return turns


def test_children_that_were_not_started(fleet: Fleet, dies_before_errands: set[ErrandKind]) -> None:
    dies_before_errands.add(ErrandKind.START)
    turn = lead(fleet, "one", "two")
    assert sent(fleet) == []
    time.sleep(0.1)
    sweeper_of(fleet).sweep()
    children = sent(fleet)
    assert [child.input for child in children] == ["one", "two"]
    assert {child.parent_id for child in children} == {turn.turn_id}
    # Once more is no harm: the children are the same.
    Errands(
        settings=fleet.app.settings, store=fleet.app.store, dispatcher=fleet.app.dispatcher
    ).of_turn(ErrandKind.START, turn.turn_id)
    fleet.sent.clear()
    for child in children:
        fleet.execute(child)
    assert sent(fleet) == [fleet.turn(turn)]
    assert fleet.execute(turn)["status"] == "completed"


def test_a_reply_that_was_not_delivered(fleet: Fleet, dies_before_errands: set[ErrandKind]) -> None:
    turn = lead(fleet, "one")
    [child] = sent(fleet)
    dies_before_errands.add(ErrandKind.DELIVER)
    assert fleet.execute(child)["status"] == "completed"
    assert sent(fleet) == []
    assert fleet.turn(turn).status is TurnStatus.PARKED
    time.sleep(0.1)
    sweeper_of(fleet).sweep()
    assert [woken.turn_id for woken in sent(fleet)] == [turn.turn_id]
    assert fleet.execute(turn)["status"] == "completed"
    assert "You said: one" in (fleet.turn(turn).text or "")


def test_a_wake_up_that_was_not_sent(fleet: Fleet) -> None:
    turn = lead(fleet, "one")
    [child] = sent(fleet)
    fleet.execute(child)
    fleet.sent.clear()  # what it would have sent had it lived
    time.sleep(0.1)
    sweeper_of(fleet).sweep()
    assert [woken.turn_id for woken in sent(fleet)] == [turn.turn_id]


def test_a_takeover_asks_the_same_children(make_fleet: MakeFleet) -> None:
    """The parent's worker dies after its children began: nobody is asked twice."""
    fleet = make_fleet(dispatch_grace=60, sweep_interval=60)
    turn = lead(fleet, "one")
    [child] = sent(fleet)
    fleet.execute(child)
    [woken] = sent(fleet)
    claim = fleet.app.store.claim(
        woken.conversation_id,
        woken.turn_id,
        owner="dead",
        token="dead:1",
        window=fleet.app.runtime.agents["lead"].window,
    )
    assert claim
    assert fleet.app.store.orphan("dead") == [woken.conversation_id]
    assert fleet.execute(turn)["status"] == "completed"
    assert sent(fleet) == []
    assert fleet.turn(turn).attempt == 3


def test_the_tree_is_cancelled_by_the_sweep(fleet: Fleet) -> None:
    turn = lead(fleet, "one", "two")
    children = sent(fleet)
    fleet.producer.cancel(turn.turn_id)
    sweeper_of(fleet).sweep()
    assert {fleet.turn(child).status for child in children} == {TurnStatus.CANCELLED}
    # On a busy machine the children's own wake-ups were late, and were sent once more.
    fleet.sent.clear()
    # Their replies find a parent that has ended.
    time.sleep(0.1)
    sweeper_of(fleet).sweep()
    assert sent(fleet) == []
    assert fleet.app.store.overdue() == []


def test_children_of_a_turn_that_is_cancelled_while_they_are_started(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = fleet.app.store.enqueue

    def too_late(turns: Any) -> Any:
        [parent] = {turn.parent_id for turn in turns}
        fleet.producer.cancel(parent)
        # The sweep looks for children that are not there yet.
        sweeper_of(fleet).sweep()
        return enqueue(turns)

    monkeypatch.setattr(fleet.app.store, "enqueue", too_late)
    turn = lead(fleet, "one", "two")
    assert fleet.turn(turn).status is TurnStatus.CANCELLED
    assert sent(fleet) == []
    assert fleet.app.store.calls.children(turn.turn_id) == []
