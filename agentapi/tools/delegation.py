"""Delegation: work for another agent, as a turn of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agentapi.decoding.shown import shown
from agentapi.errors import InvalidAgent, InvalidMessage


class NamedAgent(Protocol):
    """An agent as tools see it."""

    @property
    def name(self) -> str:
        """The name that workers know it by."""
        ...

    @property
    def definition(self) -> object:
        """Its `AgentDefinition`, which tools only pass on to the engine."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Delegate:
    """A turn that a tool delegates; see `delegate`."""

    agent: str
    message: str
    timeout: float | None = None
    remembers: bool = False
    definition: object | None = None
    context: object | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Delegation:
    """What a tool returned instead of a result: turns whose replies are the result.

    Attributes:
        turns: One or more.
        listed: Whether the result is a list, even if there is only one turn.
    """

    turns: tuple[Delegate, ...]
    listed: bool


def delegate(
    agent: NamedAgent | str,
    message: str,
    *,
    timeout: float | None = None,
    remembers: bool = False,
    context: object | None = None,
) -> Delegate:
    """Ask another agent; return this from a tool.

    A tool returns one of these, or a list of them. Each becomes a turn of its own, in its own
    conversation, on any worker, and the calling turn waits without occupying a worker. The model
    gets the reply as the result of the call, or the replies as a JSON list in the given order. For
    a turn that failed it gets the error instead.

    Args:
        agent: The agent or its name; workers must know it.
        message: The message to the agent.
        timeout: Seconds the turn may take, including its waits and everything it delegates.
        remembers: Whether all turns that this conversation delegates to that agent continue one
            conversation; otherwise the agent sees only the message.
        context: Its context: a value of the agent's `context_type`, or a mapping. When not
            given, it inherits the context of the calling turn, unless both agents declare a
            `context_type` and these differ.

    Raises:
        InvalidAgent: `agent` is not an agent, or the timeout is not above 0.
        InvalidMessage: The message is empty or not text.
    """
    name = agent if isinstance(agent, str) else getattr(agent, "name", None)
    if not isinstance(name, str) or not name:
        raise InvalidAgent(
            f"cannot delegate to {shown(agent)}: expected an Agent or an agent's name"
        )
    if not isinstance(message, str) or not message.strip():
        raise InvalidMessage(
            f"the message delegated to agent {shown(name)} is empty, expected text"
        )
    if timeout is not None and timeout <= 0:
        raise InvalidAgent(
            f"cannot delegate to {shown(name)}: timeout is {shown(timeout)}, expected "
            "seconds above 0"
        )
    return Delegate(
        agent=name,
        message=message,
        timeout=timeout,
        remembers=remembers,
        definition=definition_of(agent),
        context=context,
    )


def definition_of(agent: NamedAgent | str) -> object | None:
    """The agent's definition; None where only its name is known."""
    return None if isinstance(agent, str) else getattr(agent, "definition", None)


def as_delegation(result: object) -> Delegation | None:
    """Convert a tool's result that delegates; None for other results."""
    if isinstance(result, Delegate):
        return Delegation(turns=(result,), listed=False)
    if isinstance(result, Sequence) and not isinstance(result, str | bytes):
        turns = tuple(turn for turn in result if isinstance(turn, Delegate))
        if turns and len(turns) == len(result):
            return Delegation(turns=turns, listed=True)
    return None
