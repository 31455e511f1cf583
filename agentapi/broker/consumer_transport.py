"""kombu's Redis transport, taking waiting messages several at a time.

kombu asks for one message with each BRPOP, and goes once around its event loop for it: under load
that is a tenth of what a turn costs.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import orjson
from kombu.transport import redis, virtual
from kombu.utils.json import loads

MOST_AT_ONCE: Final = 16
"""Messages that are taken beside the first, if there is room for them."""

AT_ONCE: Final = 0.001
"""Seconds in which a BRPOP is answered whose queue was not empty."""


def _decode(message: bytes) -> Any:
    # kombu's calls a function for each object, for values with a type of their own.
    return loads(message.decode()) if b"__type__" in message else orjson.loads(message)


class Places(virtual.QoS):
    """Lets a channel take no more messages than the worker can start.

    Celery counts messages that are not acknowledged, and turns are when they start: beside those
    it runs a worker would keep as many again, while others are idle.
    """

    room: Callable[[], int] | None = None
    """How many more messages the worker can start; set by its consumer."""

    def can_consume(self) -> bool:
        """Whether the channel may take a message."""
        if self.room is not None and self.room() <= 0:
            return False
        return bool(super().can_consume())  # type: ignore[no-untyped-call]

    def can_consume_max_estimate(self) -> int:
        """How many messages the channel may take."""
        estimate = super().can_consume_max_estimate()  # type: ignore[no-untyped-call]
        most = MOST_AT_ONCE if estimate is None else int(estimate)
        return most if self.room is None else min(most, self.room())


class Channel(redis.Channel):
    """Takes what waits behind a message which waited itself.

    What a worker took and did not start when it dies is sent again by the sweep, as everywhere.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        if not self.ack_emulation:
            self.QoS = Places  # type: ignore[assignment]

    def _brpop_read(self, **options: Any) -> bool:
        waited = monotonic() - (self._brpop_sent_at or 0) < AT_ONCE
        super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        room = min(self.qos.can_consume_max_estimate(), MOST_AT_ONCE)
        if waited and room > 0:
            # The queue that gave the message has moved to the end of the round.
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
