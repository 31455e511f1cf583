"""Handing work to another agent as a turn of its own."""

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
        """How workers know it."""
        ...

    @property
    def definition(self) -> object:
        """An `AgentDefinition`; tools pass it on to the engine, which stands above them."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Delegate:
    """A turn that a tool asks for; see `delegate`."""

    agent: str
    message: str
    timeout: float | None = None
    remembers: bool = False
    definition: object | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Delegation:
    """What a tool gave instead of a result: turns whose replies are the result.

    Attributes:
        turns: One or more.
        listed: Whether the result is a list, though of one.
    """

    turns: tuple[Delegate, ...]
    listed: bool


def delegate(
    agent: NamedAgent | str,
    message: str,
    *,
    timeout: float | None = None,
    remembers: bool = False,
) -> Delegate:
    """Ask another agent, as the result of a tool.

    A tool that returns this, or a list of these, ends there: each becomes a turn of its own, in
    its own conversation, on any worker, and the turn that called the tool waits for them without
    a worker. The model gets the reply as the call's result, or the replies as a JSON list, in
    the order given; a turn that failed gives its error instead.

    Args:
        agent: The agent or its name; workers must know it.
        message: What to tell it.
        timeout: Seconds it may take, its waiting included; with all that it delegates itself.
        remembers: Whether all turns that this conversation delegates to that agent are one
            conversation; else it knows nothing but the message.

    Raises:
        InvalidAgent: It is no agent.
        InvalidMessage: The message is empty or no text.
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
    )


def definition_of(agent: NamedAgent | str) -> object | None:
    """The agent's definition; None where only its name is known."""
    return None if isinstance(agent, str) else getattr(agent, "definition", None)


def as_delegation(result: object) -> Delegation | None:
    """The tool's result, if it asks for turns."""
    if isinstance(result, Delegate):
        return Delegation(turns=(result,), listed=False)
    if isinstance(result, Sequence) and not isinstance(result, str | bytes):
        turns = tuple(turn for turn in result if isinstance(turn, Delegate))
        if turns and len(turns) == len(result):
            return Delegation(turns=turns, listed=True)
    return None
