"""Celery's consumer, whose cold shutdown hands turns back instead of cancelling them."""

from __future__ import annotations

from celery.worker.consumer import Consumer


class TurnConsumer(Consumer):
    """The consumer of a worker that carries turns out."""

    def cancel_active_requests(self) -> None:
        """Hand the turns back at once: SIGQUIT and a second Ctrl-C come here."""
        self.app.runtime.hand_back()
