"""The queues of turns, as kombu declares them."""

from __future__ import annotations

from typing import Any, Final

from kombu.entity import Queue

from agentapi.broker.wire import on_rabbitmq, queue_names
from agentapi.settings import Settings

_QUORUM: Final[dict[str, Any]] = {"x-queue-type": "quorum"}
"""The queue type that RabbitMQ replicates to several nodes."""


def queue_arguments(settings: Settings) -> dict[str, Any] | None:
    """What the broker is told when a queue is declared."""
    return _QUORUM if on_rabbitmq(settings) else None


def turn_queues(settings: Settings) -> list[Queue]:
    """All queues, the same in every process; on RabbitMQ they are quorum queues."""
    arguments = queue_arguments(settings)
    return [Queue(name, queue_arguments=arguments) for name in queue_names(settings.queues)]
