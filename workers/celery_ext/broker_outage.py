"""Logs one line when a worker loses its broker, and one when the broker is back.

Celery logs each attempt to connect, with a traceback if attempts follow each other quickly: a Redis
that is a replica, is full or is still loading lets a worker connect and refuses its first command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from celery.worker.consumer.consumer import CONNECTION_ERROR, CONNECTION_RETRY
from redis import RedisError
from redis import exceptions as redis_errors

from agentapi.faults import text_of
from agentapi.logs import line
from agentapi.tls import why_out_of_reach

log = logging.getLogger("agentapi.consumer")

HELD: Final = 3.0
"""Seconds for which a connection must last before the outage is over."""

LONGEST_PAUSE: Final = 1.0
"""Maximum seconds between two attempts."""

_LONGEST_TEXT: Final = 200

_REPEATED: Final = (
    CONNECTION_RETRY,
    CONNECTION_ERROR.partition("%")[0],
    "Frequent restarts detected",
)
"""How the lines of Celery begin that these lines replace."""


def quiet(record: logging.LogRecord) -> bool:
    """A filter for Celery's log of a consumer: without the lines that this module replaces."""
    text = str(record.msg)
    if text == "%s (%r)" and isinstance(record.args, tuple) and record.args:
        text = str(record.args[0])
    return not text.startswith(_REPEATED)


class BrokerOutage:
    """Whether the broker is unavailable, as seen by the consumer. For the consumer's thread
    only."""

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with an available broker.

        Args:
            address: The broker's URL without its password.
            clock: Returns seconds.
        """
        self._address = address
        self._clock = clock
        self._since: float | None = None
        self._attempts = 0

    @property
    def lasts(self) -> bool:
        """Whether the broker is unavailable, or came back a moment ago."""
        return self._since is not None

    def failed(self, error: BaseException) -> float:
        """An attempt to connect or to use the connection failed; the first one is logged.

        Returns:
            Seconds to wait before the next attempt.
        """
        if self._since is None:
            self._since, self._attempts = self._clock(), 0
            log.warning(line("broker.lost", error=describe(error, self._address)))
        self._attempts += 1
        return min(0.1 * self._attempts, LONGEST_PAUSE)

    def held(self) -> None:
        """The connection has been kept for `HELD` seconds."""
        if self._since is not None:
            seconds = max(0.0, self._clock() - self._since - HELD)
            log.warning(line("broker.connected", seconds=round(seconds, 1)))
            self._since = None


def describe(error: BaseException, address: str) -> str:
    """What is wrong with the broker, and what to check."""
    unreachable = isinstance(error, (redis_errors.ConnectionError, redis_errors.TimeoutError))
    if isinstance(error, RedisError) and not unreachable:
        # A server that answers but refuses: a replica, a full server, or one that is still loading.
        said = text_of(error)[:_LONGEST_TEXT]
        return f"broker at {address} refuses to work: {said}; check its log and its memory"
    why = why_out_of_reach(error, address, "AGENTAPI_BROKER_URL")
    return f"broker at {address} is out of reach: {why}"
