"""Celery's consumer, as turns need it."""

from __future__ import annotations

import contextlib
import logging
import os
from functools import partial
from typing import Any, Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.common import ignore_errors

from agentapi.broker.consumer_transport import Places
from agentapi.logs import line

log = logging.getLogger("agentapi.consumer")


EVENTS_INTERVAL: Final = 0.25
"""Seconds that events for Flower are gathered: sending each by itself costs a fifth of a turn."""

EVENTS_AT_ONCE: Final = 1000
"""Events that are sent before that time is up."""


class TurnConsumer(Consumer):
    """The consumer of a worker that carries turns out."""

    event_dispatcher: Any
    task_consumer: Any
    pool: Any
    _pipe: tuple[int, int] | None = None
    _flush_planned = False

    def register_with_event_loop(self, hub: Any) -> None:
        """Let a signal and a free place end the loop's wait, and take no more than there are.

        Python repeats a poll that a signal interrupted (PEP 475).
        """
        super().register_with_event_loop(hub)  # type: ignore[no-untyped-call]
        if self._pipe is None:
            # Once: the consumer registers again after each reconnection.
            self._pipe = os.pipe()
            for descriptor in self._pipe:
                os.set_blocking(descriptor, False)
        reader, writer = self._pipe
        hub.add_reader(reader, os.read, reader, 64)
        self.app.runtime.wake_consumer = partial(_write, writer)
        qos = self.task_consumer.channel.qos
        if isinstance(qos, Places):
            qos.room = self.pool.room

    def on_send_event_buffered(self) -> None:
        """Send events for Flower a few times a second; Celery does it in each round of its loop.

        Called in any thread. Two that see no plan at once make two, which does no harm.
        """
        if not self._flush_planned:
            self._flush_planned = True
            self.hub.call_soon(self._plan_flush)

    def _plan_flush(self) -> None:
        if self.event_dispatcher:
            self.event_dispatcher.buffer_limit = EVENTS_AT_ONCE
        self.hub.call_later(EVENTS_INTERVAL, self._flush_planned_events)

    def _flush_planned_events(self) -> None:
        self._flush_planned = False
        self._flush_events()  # type: ignore[no-untyped-call]

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

    def ensure_connected(self, conn: Any) -> Any:
        """Reconnect within a second of the broker's return; Celery waits up to 30."""
        if not self.first_connection_attempt:
            conn.ensure_connection(
                errback=lambda error, _: log.debug(line("broker.away", error=error)),
                interval_start=0.2,
                interval_step=0.2,
                interval_max=1,
                callback=maybe_shutdown,
            )
            self.app.dispatcher.returns += 1
        return super().ensure_connected(conn)  # type: ignore[no-untyped-call]

    def cancel_active_requests(self) -> None:
        """Hand the turns back at once: SIGQUIT and a second Ctrl-C come here."""
        self.app.runtime.hand_back()

    def shutdown(self) -> None:
        """Send what was gathered of turns that ended while the worker stopped, then disconnect."""
        ignore_errors(self, self._flush_events)
        super().shutdown()  # type: ignore[no-untyped-call]


def _write(descriptor: int) -> None:
    # A full pipe wakes whoever reads it already.
    with contextlib.suppress(BlockingIOError):
        os.write(descriptor, b"!")
