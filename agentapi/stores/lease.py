"""The right to advance a conversation, and the news that a turn may run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Wakeup:
    """A turn that may run now: what its Celery task says."""

    conversation_id: str
    turn_id: str
    agent: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to advance a conversation.

    Attributes:
        epoch: Grows with every claim and by the store's clock; a write under an older one is
            refused.
        token: The claim's own name. Two claims that know nothing of each other, as before and
            after a failover, may have the same epoch, but never the same token.
        generation: The history that the turn belongs to; a reset begins a new one.
    """

    conversation_id: str
    turn_id: str
    epoch: int
    token: str
    generation: int

    @property
    def fence(self) -> str:
        """What every write carries: epoch and token."""
        return f"{self.epoch}:{self.token}"
