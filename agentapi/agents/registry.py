"""The agents that a process knows: every `Agent` in the modules that it was told to load."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from agentapi.agents.definition import AgentDefinition, DefinedAgent
from agentapi.agents.names import INTERNAL, is_internal
from agentapi.conversation.window import Window
from agentapi.errors import AgentAPIError, ConfigurationError, InvalidAgent
from agentapi.providers.models import LARGEST, NO_SIZES, size_of
from agentapi.tools import AgentTool, Handoff
from agentapi.turns.model_size import ModelSize


def find_agents(modules: Sequence[str]) -> list[DefinedAgent]:
    """Import the modules and collect their agents.

    Args:
        modules: Names such as ``"shop.agents"``. The working directory is searched too, as with
            `celery -A`.

    Raises:
        ConfigurationError: A module cannot be imported, or none has an agent.
        InvalidAgent: Two agents have the same name, or a name has the reserved prefix.
    """
    here = str(Path.cwd())
    if modules and here not in sys.path:
        sys.path.insert(0, here)
    found = [
        agent
        for module in modules
        for agent in vars(_import(module)).values()
        if isinstance(agent, DefinedAgent)
    ]
    if modules and not found:
        raise ConfigurationError(
            f"no Agent in {', '.join(modules)} (AGENTAPI_AGENTS): "
            "expected at least one at module level"
        )
    for name in filter(is_internal, by_name(found)):
        raise InvalidAgent(f"agent {name!r}: names beginning with {INTERNAL!r} are reserved")
    return found


def load_agents(modules: Sequence[str]) -> dict[str, AgentDefinition]:
    """The definitions of the modules' agents by name; raises the same as `find_agents`."""
    return by_name(find_agents(modules))


def by_name(agents: Iterable[DefinedAgent | AgentDefinition]) -> dict[str, AgentDefinition]:
    """The agents' definitions by name, with those of the agents that their tools ask.

    Raises:
        InvalidAgent: Two different agents have the same name.
    """
    found: dict[str, AgentDefinition] = {}
    waiting = [agent.definition if isinstance(agent, DefinedAgent) else agent for agent in agents]
    while waiting:
        agent = waiting.pop(0)
        if agent.name not in found:
            found[agent.name] = agent
            waiting += asked_by(agent)
        elif found[agent.name] is not agent:
            raise InvalidAgent(
                f"two agents are named {agent.name!r}: give each Agent(name=...) its own"
            )
    return found


def asked_by(agent: AgentDefinition) -> list[AgentDefinition]:
    """The agents behind an agent's tools, if a tool has the agent object and not only its name."""
    return [
        other
        for tool in agent.tools
        if isinstance(tool, AgentTool | Handoff)
        and isinstance(other := tool.definition, AgentDefinition)
    ]


def widest_window(
    agent: AgentDefinition,
    known: Mapping[str, AgentDefinition],
    sizes: Mapping[str, ModelSize] = NO_SIZES,
) -> Window:
    """The amount of history to load, so that it suffices for every agent that may take over the
    turn.

    Args:
        agent: The agent that begins the turn.
        known: The agents that it can be handed over to, by name.
        sizes: The user's table of models.
    """
    seen: dict[str, AgentDefinition] = {agent.name: agent}
    waiting = [agent]
    while waiting:
        for tool in waiting.pop().tools:
            if isinstance(tool, Handoff) and tool.target not in seen and tool.target in known:
                seen[tool.target] = known[tool.target]
                waiting.append(known[tool.target])
    if len(seen) == 1:
        return agent.window
    messages = [other.window.messages for other in seen.values()]
    return Window(
        messages=None if None in messages else max(m for m in messages if m is not None),
        # A window without a token limit is limited by what the agent's models accept.
        tokens=max(
            room if (limit := other.window.tokens) is None else min(limit, room)
            for other in seen.values()
            for room in [_largest_room(other, sizes)]
        ),
    )


def _largest_room(agent: AgentDefinition, sizes: Mapping[str, ModelSize]) -> int:
    """The most tokens that one of the agent's models accepts. A default model may be any model."""
    return max(
        LARGEST if choice.model is None else size_of(choice.provider, choice.model, sizes).context
        for choice in agent.choices
    )


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except AgentAPIError:
        raise
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        why = (
            f"{error}; expected a module on the Python path, such as shop.agents"
            if missing
            else _described(error, name)
        )
        raise ConfigurationError(
            f"AGENTAPI_AGENTS names {name!r}, which cannot be imported: {why}"
        ) from error


def _described(error: Exception, module: str) -> str:
    """One line about an error in a module: its type, its place in the module, and its text."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{kind} at {_short(error.filename)} line {error.lineno}: {error.msg}"
    # The module's own line rather than a library's, which the user cannot change.
    lines = [
        f" at {_short(frame.f_code.co_filename)} line {number}"
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__") == module
    ]
    place = lines[-1] if lines else ""
    # The text may have several lines, such as that of pydantic's errors.
    text = " ".join(str(error).split())
    return f"{kind}{place}: {text}" if text else f"{kind}{place}"


def _short(file: str) -> str:
    """A file's path, relative to the working directory if the file is inside it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
