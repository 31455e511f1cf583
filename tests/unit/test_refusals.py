"""What keeps a worker from starting."""

from __future__ import annotations

import pytest

from agentapi import Agent, Settings
from agentapi.stores import InMemoryTurnStore
from workers.refusals import refuse_no_agents, refuse_other_fleet, refuse_other_queues


def test_agents() -> None:
    refuse_no_agents({"a": Agent(name="a", provider="offline").definition})
    with pytest.raises(SystemExit, match="cannot start: it has no agents; name the modules"):
        refuse_no_agents({})


def test_queues() -> None:
    settings = Settings(queues=2)
    # A worker may leave some queues to others, and read more.
    for consumed in (["agentapi.0", "agentapi.1"], ["agentapi.1"], ["foo", "agentapi.0"]):
        refuse_other_queues(settings, consumed)
    with pytest.raises(SystemExit, match=r"it would read the queues agentapi\.2, foo"):
        refuse_other_queues(settings, ["foo", "agentapi.2"])
    with pytest.raises(SystemExit, match="it would read the queues none"):
        refuse_other_queues(settings, [])


def test_the_number_of_queues_of_the_fleet() -> None:
    store = InMemoryTurnStore(Settings())
    refuse_other_fleet(Settings(queues=8), store)
    refuse_other_fleet(Settings(queues=8), store)
    with pytest.raises(SystemExit, match=r"is 16 here, but the workers have 8.*stop all workers"):
        refuse_other_fleet(Settings(queues=16), store)
