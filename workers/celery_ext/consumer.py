"""Celery's consumer, adapted to turns."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from functools import partial
from typing import Any, Final

from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown
from kombu.common import ignore_errors

from agentapi.broker.consumer_transport import Places
from agentapi.broker.wire import on_rabbitmq
from agentapi.urls import without_password
from workers.celery_ext.broker_outage import HELD, BrokerOutage, quiet

CELERYS: Final = "celery.worker.consumer.consumer"
"""Celery's logger of a consumer."""

EVENTS_INTERVAL: Final = 0.25
"""Seconds for which events for Flower are batched. Sent one by one, they take a fifth of a turn's
time."""

EVENTS_AT_ONCE: Final = 1000
"""Number of events that are sent without waiting that long."""


QUEUE_PREFETCH: Final = 2
"""Messages of each queue that RabbitMQ delivers to a worker in advance. Few, because messages in a
busy worker wait even if other workers are idle."""


class TurnConsumer(Consumer):
    """The consumer of a worker that runs turns."""

    class Blueprint(Consumer.Blueprint):
        """Without queues for delayed tasks: no turn has an ETA, and on RabbitMQ there would be 28
        of them."""

        default_steps = [  # noqa: RUF012
            step for step in Consumer.Blueprint.default_steps if "delayed_delivery" not in step
        ]

    event_dispatcher: Any
    task_consumer: Any
    pool: Any
    _pipe: tuple[int, int] | None = None
    _flush_planned = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._outage = BrokerOutage(without_password(self.app.settings.broker_url))
        logging.getLogger(CELERYS).addFilter(quiet)
        if on_rabbitmq(self.app.settings):
            # RabbitMQ counts the messages of each queue separately, the only way that quorum queues
            # support.
            self.initial_prefetch_count = QUEUE_PREFETCH

    def register_with_event_loop(self, hub: Any) -> None:
        """Let signals and free slots end the loop's wait, and take only as many tasks as fit.

        A signal alone would not end it: Python repeats a poll that a signal interrupts (PEP 475).
        """
        super().register_with_event_loop(hub)  # type: ignore[no-untyped-call]
        if self._pipe is None:
            # Only once: the consumer registers again after each reconnection.
            self._pipe = os.pipe()
            for descriptor in self._pipe:
                os.set_blocking(descriptor, False)
        reader, writer = self._pipe
        hub.add_reader(reader, os.read, reader, 64)
        self.app.runtime.wake_consumer = partial(_write, writer)
        # Again after each reconnection: the new channel has a new QoS.
        qos = getattr(self.task_consumer.channel, "qos", None)
        if isinstance(qos, Places):
            qos.room = self.pool.room
        if self._outage.lasts:
            # Celery undoes this if the connection is lost before.
            hub.call_later(HELD, self._outage.held)

    def on_send_event_buffered(self) -> None:
        """Send events for Flower a few times a second; Celery would do it in each loop round.

        May be called in any thread. Two threads may plan two flushes, which does no harm.
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
        """Reconnect without restoring messages to a broker that is unreachable.

        Restoring them on a closed connection raises an AttributeError that ends the worker
        (kombu 5.7, transport/redis.py, Channel._connparams). The sweep sends again the wake-ups
        that are lost here.
        """
        transport = self.connection.transport if self.connection else None
        pause = self._outage.failed(exc)
        for channel in getattr(transport, "channels", None) or ():
            channel.do_restore = False
        super().on_connection_error_after_connected(exc)  # type: ignore[no-untyped-call]
        # A server that refuses every first command still accepts every connection.
        time.sleep(pause)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Log the first failure only."""
        self._outage.failed(exc)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect within a second of the broker's return; Celery waits up to 30."""
        first = self.first_connection_attempt
        conn.ensure_connection(
            errback=lambda error, _: self._outage.failed(error),
            interval_start=0.2,
            interval_step=0.2,
            interval_max=1,
            callback=maybe_shutdown,
        )
        if not first:
            # A broker that was away may have lost wake-ups: the sweep looks for their turns again.
            self.app.dispatcher.returns += 1
        return super().ensure_connected(conn)  # type: ignore[no-untyped-call]

    def cancel_active_requests(self) -> None:
        """Hand the turns back immediately: Celery calls this at SIGQUIT and a second Ctrl-C."""
        self.app.runtime.shutdown.hand_back()

    def shutdown(self) -> None:
        """Send the last events, of turns that ended while the worker stopped, then disconnect."""
        ignore_errors(self, self._flush_events)
        super().shutdown()  # type: ignore[no-untyped-call]


def _write(descriptor: int) -> None:
    # A full pipe wakes its reader anyway.
    with contextlib.suppress(BlockingIOError):
        os.write(descriptor, b"!")
