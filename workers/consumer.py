"""Celery's consumer, as turns need it."""

from __future__ import annotations

from celery.worker.consumer import Consumer


class TurnConsumer(Consumer):
    """The consumer of a worker that carries turns out."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Reconnect without restoring messages to a broker that is not there.

        Restoring them on a closed connection raises an AttributeError that ends the worker
        (kombu 5.7, transport/redis.py, Channel._connparams). A wake-up that is lost here is
        sent again by the sweep.
        """
        transport = self.connection.transport if self.connection else None
        for channel in getattr(transport, "channels", None) or ():
            channel.do_restore = False
        super().on_connection_error_after_connected(exc)  # type: ignore[no-untyped-call]

    def cancel_active_requests(self) -> None:
        """Hand the turns back at once: SIGQUIT and a second Ctrl-C come here."""
        self.app.runtime.hand_back()
