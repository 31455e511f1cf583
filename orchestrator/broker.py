"""The producer's side of the broker: a Celery app that only sends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

import redis
from amqp.exceptions import AMQPError
from celery import Celery
from kombu.exceptions import OperationalError

from agentapi import Settings
from agentapi.broker.queues import turn_queues
from agentapi.broker.wire import celery_settings, task_message, transport_of
from agentapi.errors import BrokerUnavailable
from agentapi.logins import login_refused, virtual_host_refused
from agentapi.logs import line
from agentapi.stores import Wakeup
from agentapi.tls import why_out_of_reach
from agentapi.urls import without_password

log = logging.getLogger("agentapi.broker")

BROKER_ERRORS: Final = (OperationalError, OSError, redis.RedisError, AMQPError)
"""Errors of kombu when the broker cannot be used. Kombu does not translate all of them: a refused
login stays an error of the driver."""


class Wakeups(Protocol):
    """Notifies workers of turns that may run now."""

    def send(self, wakeups: Sequence[Wakeup]) -> None:
        """Send all the wake-ups."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def producer_app(settings: Settings) -> Celery:
    """A Celery app that sends tasks and asks workers; it defines no tasks."""
    app = Celery("agentapi-producer", set_as_current=False)
    app.conf.update(
        celery_settings(settings),
        task_queues=turn_queues(settings),
        broker_transport=transport_of(settings, "agentapi.broker.producer_transport"),
    )
    return app


def broker_unavailable(settings: Settings, error: Exception) -> BrokerUnavailable:
    """The error for a broker that does not answer."""
    address = without_password(settings.broker_url)
    if login_refused(error):
        return BrokerUnavailable(
            f"broker at {address} refuses the user or password: correct AGENTAPI_BROKER_URL"
        )
    if virtual_host_refused(error):
        return BrokerUnavailable(
            f"broker at {address} has no such virtual host, or denies the user access to it: "
            "correct AGENTAPI_BROKER_URL"
        )
    why = why_out_of_reach(error, address, "AGENTAPI_BROKER_URL")
    return BrokerUnavailable(f"broker at {address} is out of reach: {why}")


def ask_workers(
    app: Any, settings: Settings, command: str, *, timeout: float, tries: int = 1
) -> list[dict[str, Any]]:
    """Ask all workers something.

    Args:
        app: Sends the question; see `producer_app`.
        settings: Where the broker is.
        command: The question: a command of the workers' remote control.
        timeout: Seconds to wait for answers.
        tries: How often to ask until somebody answers. A worker that is busy, or just starting, may
            miss a question.

    Returns:
        What each worker answers, by its name.

    Raises:
        BrokerUnavailable: The broker is out of reach.
    """
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(
                max_retries=1, interval_start=0.1, timeout=settings.redis_timeout
            )
            for _ in range(tries):
                replies: list[dict[str, Any]] | None = app.control.broadcast(
                    command, reply=True, timeout=timeout, connection=connection
                )
                if replies:
                    return replies
            return []
    except BROKER_ERRORS as error:
        raise broker_unavailable(settings, error) from error


class CeleryWakeups:
    """Sends wake-ups over one connection. Safe to share between threads.

    If the broker does not accept a wake-up, the error is logged and not raised: the turn is
    accepted, and the workers' sweep finds it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Any = producer_app(settings)
        self._away = False

    def send(self, wakeups: Sequence[Wakeup]) -> None:
        """Send all the wake-ups."""
        if not wakeups:
            return
        try:
            # One producer for all of them saves fetching a connection for each.
            with self._app.producer_or_acquire() as producer:
                for wakeup in wakeups:
                    message = task_message(
                        wakeup.conversation_id,
                        wakeup.turn_id,
                        wakeup.agent,
                        self._settings,
                    )
                    self._app.send_task(**message, producer=producer)
        except (OperationalError, OSError, AMQPError) as error:
            # One line per outage, because every enqueue fails during it.
            if not self._away:
                log.warning(
                    line("wakeups.delayed", error=broker_unavailable(self._settings, error))
                )
            self._away = True
        except Exception as error:
            # The turns are accepted: an error here would tell the caller that they are not.
            log.error(line("wakeups.failed", count=len(wakeups), error=type(error).__name__))
        else:
            if self._away:
                log.warning(line("wakeups.sent_again"))
            self._away = False

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
