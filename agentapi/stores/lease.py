"""The right to advance a conversation, and the message that a turn may run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Wakeup:
    """A turn that may run now; its Celery task carries the same ids."""

    conversation_id: str
    turn_id: str
    agent: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to advance a conversation.

    Attributes:
        epoch: Grows with every claim, and with the store's clock. A write under an older epoch is
            refused, so a worker that was presumed dead cannot overwrite its successor.
        token: The claim's own name. A failover can lose a claim, and the next one may then get the
            same epoch; it never gets the same token.
        generation: The history that the turn belongs to; a reset begins a new one.
    """

    conversation_id: str
    turn_id: str
    epoch: int
    token: str
    generation: int

    @property
    def fence(self) -> str:
        """Epoch and token; every write carries them."""
        return f"{self.epoch}:{self.token}"
