"""kombu's Redis transport, changed to take several waiting messages at once.

kombu takes one message with each BRPOP and runs its event loop once for each, which under load is a
tenth of the cost of a turn.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import orjson
from kombu.transport import redis, virtual
from kombu.utils.json import loads

MAX_MORE_MESSAGES: Final = 16
"""Maximum messages taken together with the first one, if the worker has room for them."""

WAITING: Final = 0.001
"""Seconds. A BRPOP that returns within this time found a message that was already in the queue."""


def _decode(message: bytes) -> Any:
    # kombu's loader calls a function for each object to restore special types.
    return loads(message.decode()) if b"__type__" in message else orjson.loads(message)


class Places(virtual.QoS):
    """Limits a channel to as many messages as the worker can start.

    Celery counts unacknowledged messages, but a turn is acknowledged when it starts. Without this
    limit a worker would take twice as many messages as it can run, while other workers are idle.
    """

    room: Callable[[], int] | None = None
    """How many more messages the worker can start. Its consumer sets this."""

    def can_consume(self) -> bool:
        """Whether the channel may take a message."""
        if self.room is not None and self.room() <= 0:
            return False
        return bool(super().can_consume())  # type: ignore[no-untyped-call]

    def can_consume_max_estimate(self) -> int:
        """How many messages the channel may take."""
        estimate = super().can_consume_max_estimate()  # type: ignore[no-untyped-call]
        most = MAX_MORE_MESSAGES if estimate is None else int(estimate)
        return most if self.room is None else min(most, self.room())


class Channel(redis.Channel):
    """After a message that waited in the queue, also takes the messages waiting behind it.

    If the worker dies before it starts them, the sweep sends them again.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        if not self.ack_emulation:
            self.QoS = Places  # type: ignore[assignment]

    def _brpop_read(self, **options: Any) -> bool:
        waited = monotonic() - (self._brpop_sent_at or 0) < WAITING
        super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        room = min(self.qos.can_consume_max_estimate(), MAX_MORE_MESSAGES)
        if waited and room > 0:
            # The queue of the message is now the last one of the cycle.
            queue = self._queue_cycle.items[-1]
            key = self._q_for_pri(queue, 0)  # type: ignore[no-untyped-call]
            for message in self.client.rpop(key, room) or ():
                self.connection._deliver(_decode(message), queue)
        return True


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same behind sentinels."""


class Transport(redis.Transport):
    """For ``redis://`` and ``rediss://``."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """For ``sentinel://``."""

    Channel = SentinelChannel
