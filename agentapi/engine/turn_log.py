"""The destination of a turn's steps and text while it runs."""

from __future__ import annotations

from typing import Protocol

from agentapi.turns.steps import Step


class TurnLog(Protocol):
    """Receives what happens in a turn, as it happens."""

    async def record(self, step: Step, steps: list[Step]) -> None:
        """Store a step; returns when it is safe.

        Args:
            step: The turn's next step.
            steps: The turn's steps. The new step is added as soon as it is stored, even if the
                caller is cancelled meanwhile, but not if it was refused.

        Raises:
            LeaseLost: Another process owns the turn now.
        """
        ...

    async def delta(self, text: str, *, refusal: bool = False) -> None:
        """A piece of text arrived, or a piece of a refusal to answer."""
        ...

    async def call_delta(self, index: int, tool: str, arguments: str) -> None:
        """A piece of the arguments of a client tool's call arrived."""
        ...

    async def reset(self) -> None:
        """The text since the last step will be produced again."""
        ...

    async def joined(self, steps: list[Step]) -> None:
        """Take the messages that wait to join the turn; they are recorded as its next steps.

        Args:
            steps: The turn's steps. The new steps are added as soon as they are recorded, even if
                the caller is cancelled meanwhile.

        Raises:
            LeaseLost: Another process owns the turn now.
        """
        ...


class NoLog:
    """A log for turns that no other process continues or follows."""

    async def record(self, step: Step, steps: list[Step]) -> None:
        """Nothing to store."""
        steps.append(step)

    async def delta(self, text: str, *, refusal: bool = False) -> None:
        """No one listens."""

    async def call_delta(self, index: int, tool: str, arguments: str) -> None:
        """No one listens."""

    async def reset(self) -> None:
        """No one listens."""

    async def joined(self, steps: list[Step]) -> None:
        """No messages can arrive."""
