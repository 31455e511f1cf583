"""Tools for agents: one asks another agent, one hands the conversation over to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentapi.tools.context import ToolContext
from agentapi.tools.decorator import Tool
from agentapi.tools.delegation import Delegate, NamedAgent, definition_of, delegate


class Handoff(Tool[..., Any]):
    """A tool that hands the conversation over to another agent.

    Attributes:
        target: Name of that agent.
        definition: The agent's definition; None if only its name was given.
    """

    def __init__(self, agent: NamedAgent | str, description: str | None) -> None:
        self.target = agent if isinstance(agent, str) else agent.name
        self.definition = definition_of(agent)

        def transfer() -> str:
            return f"{self.target} takes over the conversation."

        name = "transfer_to_" + self.target.replace(".", "_")
        super().__init__(
            transfer,
            name=name[:64],
            description=description or f"Hand the conversation over to {self.target}.",
            idempotent=True,
        )

    async def invoke(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        """See `Tool.invoke`; arguments are ignored, because a handoff has none."""
        return str(self.function())


def handoff(agent: NamedAgent | str, *, description: str | None = None) -> Handoff:
    """Make a tool that hands the conversation over to another agent.

    From then on, in this turn and in later ones, that agent answers, with its own prompt, model and
    tools, and with the whole history. To hand the conversation back, it needs a handoff tool of its
    own.

    Args:
        agent: The agent or its name; workers must know it.
        description: When to hand over; shown to the model.

    Raises:
        InvalidTool: The agent's name cannot be part of a tool name.
    """
    return Handoff(agent, description)


class AgentTool(Tool[..., Any]):
    """A tool that asks another agent; see `Agent.as_tool`.

    Attributes:
        definition: The agent's definition.
    """

    def __init__(
        self,
        agent: NamedAgent,
        *,
        name: str | None,
        description: str | None,
        timeout: float | None,
        remembers: bool,
        requires_approval: bool,
    ) -> None:
        self.definition = definition_of(agent)

        def ask(message: str) -> Delegate:
            return delegate(agent, message, timeout=timeout, remembers=remembers)

        super().__init__(
            ask,
            name=name or agent.name.replace(".", "_"),
            description=description or f"Ask {agent.name}, who sees only this message.",
            idempotent=True,
            requires_approval=requires_approval,
        )
