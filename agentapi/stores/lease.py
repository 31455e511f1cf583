"""Leases and wake-ups."""

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
        token: Identifies the claim. A failover can lose a claim, and the next claim may get the
            same epoch, but never the same token.
        generation: The history that the turn belongs to; a reset begins a new one.
    """

    conversation_id: str
    turn_id: str
    epoch: int
    token: str
    generation: int

    @property
    def fence(self) -> str:
        """Epoch and token. Every write carries them."""
        return f"{self.epoch}:{self.token}"
