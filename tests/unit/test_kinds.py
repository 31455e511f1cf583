"""Kinds of turns, and the work that belongs to each."""

from __future__ import annotations

import pytest

from agentapi.agents.names import is_internal
from agentapi.broker.wire import task_message
from agentapi.ids import create_turn_id
from agentapi.settings import load_settings
from agentapi.turns.kinds import TurnKind, kind_of
from workers.app import create_app


@pytest.mark.parametrize(
    ("agent", "kind"),
    [
        ("helper", TurnKind.AGENT),
        ("agentapi.compact", TurnKind.COMPACTION),
        ("agentapi.gather", TurnKind.GATHER),
        ("agentapi.chain", TurnKind.CHAIN),
        # Of a later release, perhaps: an agent that this one does not know.
        ("agentapi.other", TurnKind.AGENT),
    ],
)
def test_a_turn_names_its_kind_by_its_agent(agent: str, kind: TurnKind) -> None:
    assert kind_of(agent) is kind
    # No agent of a user can pass for one of these.
    assert is_internal(agent) == (agent != "helper")


def test_summaries_do_not_hold_up_conversations() -> None:
    settings = load_settings()
    priorities = {
        agent: task_message("c", create_turn_id("c"), agent, settings)["priority"]
        for agent in ("helper", "agentapi.gather", "agentapi.compact")
    }
    assert priorities["helper"] == priorities["agentapi.gather"] == 0
    assert priorities["agentapi.compact"] > 0


def test_every_kind_has_its_work() -> None:
    runtime = create_app(load_settings(eager=True), []).runtime
    assert set(runtime._claimer.works) == set(TurnKind)
    runtime.stop()
