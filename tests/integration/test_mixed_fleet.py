"""Workers of neighbouring versions: one lacks what the other has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from agentapi import Agent, handoff
from agentapi.redis.keys import conversation_keys
from agentapi.stores import Wakeup
from agentapi.turns import Turn, TurnStatus
from orchestrator import CancelOutcome
from tests.faults import until
from tests.integration.fleet import Fleet
from workers.turns.unknown_agents import FIRST_DELAY

MakeFleet = Callable[..., Fleet]

OLD = Agent(name="old", provider="offline")
NEW = Agent(name="new", provider="offline")


@pytest.fixture
def fleet(make_fleet: MakeFleet) -> Fleet:
    return make_fleet(agents=[OLD], unknown_agent_wait=2 * FIRST_DELAY, sweep_interval=60)


def until_due(fleet: Fleet, turn: Turn) -> None:
    until(lambda: turn.conversation_id in fleet.app.store.overdue())


def test_a_turn_of_an_agent_that_only_another_worker_has(
    make_fleet: MakeFleet, fleet: Fleet
) -> None:
    turn = fleet.enqueue("new", "hi")
    with redis.Redis.from_url(fleet.app.settings.redis_url) as client:
        seconds, micros = client.time()
        answer = fleet.execute(turn)
        assert (answer["status"], answer["seconds"]) == ("handed_back", FIRST_DELAY)
        # Nobody is woken for it before its time.
        due = client.zscore(conversation_keys(turn.conversation_id).due, turn.conversation_id)
        assert (due or 0) >= seconds * 1000 + micros // 1000 + FIRST_DELAY * 1000
    assert fleet.sent == []
    assert fleet.turn(turn).status is TurnStatus.QUEUED
    until_due(fleet, turn)
    assert make_fleet(agents=[OLD, NEW]).execute(turn)["status"] == "completed"


def test_a_turn_of_an_agent_that_no_worker_has_fails_in_time(fleet: Fleet) -> None:
    turn = fleet.enqueue("new", "hi", conversation_id="c")
    behind = fleet.enqueue("old", "and now?", conversation_id="c")
    statuses: list[str] = []
    while not statuses or statuses[-1] == "handed_back":
        statuses.append(fleet.execute(turn)["status"])
        if statuses[-1] == "handed_back":
            until_due(fleet, turn)
    assert statuses == ["handed_back", "handed_back", "failed"]
    error = fleet.turn(turn).error
    assert error is not None
    assert (error.code, "agent 'new' is not registered" in error.message) == ("unknown_agent", True)
    assert fleet.sent == [Wakeup(conversation_id="c", turn_id=behind.turn_id, agent="old")]


def test_a_turn_that_waits_for_such_a_worker_can_be_cancelled(fleet: Fleet) -> None:
    turn = fleet.enqueue("new", "hi")
    assert fleet.execute(turn)["status"] == "handed_back"
    assert fleet.producer.cancel(turn.turn_id) is not CancelOutcome.ENDED
    assert fleet.execute(turn)["status"] == "cancelled"


def test_a_turn_that_was_handed_over_to_such_an_agent(make_fleet: MakeFleet) -> None:
    """The worker that had it died; the other lacks the agent that goes on."""
    front = Agent(name="front", provider="offline", tools=[handoff("new")])
    both: dict[str, Any] = {"unknown_agent_wait": 60, "lease_ttl": 60}
    upgraded = make_fleet(agents=[front, NEW], **both)
    turn = upgraded.enqueue("front", "/transfer_to_new")
    assert upgraded.execute(turn)["status"] == "completed"
    following = upgraded.enqueue("front", "who are you?", conversation_id=turn.conversation_id)
    behind = make_fleet(agents=[front], **both)
    assert behind.execute(following)["status"] == "handed_back"
    assert upgraded.execute(following)["status"] == "completed"
    assert upgraded.turn(following).answered_by == "new"


@pytest.mark.parametrize("wait", [0])
def test_a_fleet_of_one_kind_need_not_wait(make_fleet: MakeFleet, wait: float) -> None:
    fleet = make_fleet(agents=[OLD], unknown_agent_wait=wait)
    turn = fleet.enqueue("new", "hi")
    assert fleet.execute(turn)["error"] == "unknown_agent"
