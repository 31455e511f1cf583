"""A turn that must run in a separate process."""

from __future__ import annotations

from dataclasses import dataclass

from agentapi.stores import Wakeup


@dataclass(frozen=True, kw_only=True, slots=True)
class SuspectTurn:
    """A turn that lost its worker and must run in a separate process.

    Attributes:
        job: The pool's number of the task that asked for it.
        process: The prefix of that process's claim token.
        owner: The worker's name, for people.
    """

    job: int
    conversation_id: str
    turn_id: str
    agent: str
    process: str
    owner: str

    @property
    def wakeup(self) -> Wakeup:
        """The wake-up for another worker."""
        return Wakeup(conversation_id=self.conversation_id, turn_id=self.turn_id, agent=self.agent)
