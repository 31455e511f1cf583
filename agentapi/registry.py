"""The agents that a process knows: every `Agent` in the modules it was told to load."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

from agentapi.agent import Agent
from agentapi.errors import ConfigurationError, InvalidAgent, UnknownAgent


def load_agents(modules: Sequence[str]) -> Mapping[str, Agent]:
    """Import the modules and collect their agents by name.

    Args:
        modules: Names such as ``"shop.agents"``, importable from where the process runs.

    Raises:
        ConfigurationError: A module cannot be imported, or none has an agent.
        InvalidAgent: Two agents have one name.
    """
    found = by_name(
        agent
        for module in modules
        for agent in vars(_import(module)).values()
        if isinstance(agent, Agent)
    )
    if modules and not found:
        raise ConfigurationError(
            f"no Agent in {', '.join(modules)} (AGENTAPI_AGENTS): "
            "expected at least one at module level"
        )
    return found


def by_name(agents: Iterable[Agent]) -> dict[str, Agent]:
    """The agents by their names.

    Raises:
        InvalidAgent: Two different agents have one name.
    """
    found: dict[str, Agent] = {}
    for agent in agents:
        if found.setdefault(agent.name, agent) is not agent:
            raise InvalidAgent(
                f"two agents are named {agent.name!r}: give each Agent(name=...) its own"
            )
    return found


def unknown_agent(name: str, known: Iterable[str]) -> UnknownAgent:
    """The error of an agent that is not registered."""
    names = ", ".join(sorted(known)) or "none"
    return UnknownAgent(
        f"there is no agent {name!r} here; known are: {names}. "
        "Add its module to AGENTAPI_AGENTS, on every worker"
    )


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"AGENTAPI_AGENTS names {name!r}, which cannot be imported: {error}; "
            "expected a module on the Python path, such as shop.agents"
        ) from error
