"""Sending the Celery task that wakes a worker for a turn."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from kombu.exceptions import BatchPublishError, OperationalError

from agentapi.broker.queues import queue_arguments
from agentapi.broker.wire import task_message
from agentapi.logs import line
from agentapi.settings import Settings
from agentapi.stores import Wakeup

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger("agentapi.dispatch")


class Dispatcher:
    """Sends wake-ups without waiting for confirmation: the sweep sends lost ones again."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        # Each thread of a producer runs the turns that it caused.
        self._eager = threading.local()
        self._away = False
        self.returns = 0
        """How many times the broker came back. Wake-ups sent before may be lost."""

    @cached_property
    def _errors(self) -> tuple[type[Exception], ...]:
        """The errors of an unreachable broker. Only some calls of kombu wrap the transport's."""
        connection = self._app.connection_for_write()
        own = (*connection.connection_errors, *connection.channel_errors)
        return (OperationalError, BatchPublishError, OSError, *own)

    def send(self, wakeup: Wakeup | None) -> None:
        """Send a wake-up, if there is one. An unreachable broker is logged, not raised."""
        if wakeup is None:
            return
        if self._settings.eager:
            self._run_here(wakeup)
            return
        try:
            # Ids only: users' text stays in Redis (promise 8), and a lost or repeated message does
            # no harm.
            self._app.send_task(**self._message(wakeup))
        except self._errors as error:
            self._note(error)
        else:
            self._note(None)

    def send_all(self, wakeups: Sequence[Wakeup]) -> None:
        """Send wake-ups together: to Redis in one round trip. Otherwise as `send`."""
        if self._settings.eager or len(wakeups) < 2:
            for wakeup in wakeups:
                self.send(wakeup)
            return
        try:
            with self._app.producer_or_acquire() as producer, producer.batch(len(wakeups)):
                for wakeup in wakeups:
                    self._app.send_task(**self._message(wakeup), producer=producer)
        except self._errors:
            # The connection may have been stale: `send` makes a new one. It is unknown which
            # wake-ups were sent, and repeating one does no harm.
            for wakeup in wakeups:
                self.send(wakeup)
                if self._away:
                    # The others would wait for the same timeout; the sweep sends them later.
                    return
        else:
            self._note(None)

    @property
    def away(self) -> bool:
        """Whether the broker was unreachable at the last attempt."""
        return self._away

    def reachable(self) -> bool:
        """Whether the broker accepts messages now. It is asked only if the last message failed."""
        if self._settings.eager or not self._away:
            return True
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=self._settings.redis_timeout)
        except self._errors as error:
            self._note(error)
            return False
        self._note(None)
        return True

    def holds(self, queue: str) -> bool:
        """Whether the broker's queue holds messages that no worker has taken."""
        if self._settings.eager:
            return False
        try:
            with self._app.producer_or_acquire() as producer:
                # The declaration returns how many messages the queue holds. It is not passive: on
                # Redis a passive one fails with a global_keyprefix, which its EXISTS omits
                # (kombu 5.7), and on RabbitMQ the queue may be gone.
                declared = producer.channel.queue_declare(
                    queue,
                    durable=True,
                    auto_delete=False,
                    arguments=queue_arguments(self._settings),
                )
        except self._errors as error:
            # The sweep then treats no wake-up as queued, and at worst sends one too many.
            self._note(error)
            return False
        return bool(declared.message_count)

    def _note(self, error: Exception | None) -> None:
        """Log once that the broker is unreachable, and once that it is back."""
        # Without a lock: two threads that see the change together log it twice, which does no harm.
        if error is not None and not self._away:
            log.warning(line("broker.away", error=type(error).__name__))
        elif error is None and self._away:
            log.warning(line("broker.back"))
            self.returns += 1
        self._away = error is not None

    def _message(self, wakeup: Wakeup) -> dict[str, object]:
        return task_message(wakeup.conversation_id, wakeup.turn_id, wakeup.agent, self._settings)

    def _run_here(self, wakeup: Wakeup) -> None:
        """Run the turn and those that follow from it one after the other, without recursion."""
        waiting: deque[Wakeup] | None = getattr(self._eager, "waiting", None)
        if waiting is not None:
            waiting.append(wakeup)
            return
        self._eager.waiting = deque([wakeup])
        try:
            while self._eager.waiting:
                message = self._message(self._eager.waiting.popleft())
                name = str(message.pop("name"))
                # These options only make sense for a broker, and there is none here.
                for publishing in ("retry", "retry_policy", "queue", "declare"):
                    message.pop(publishing)
                self._app.tasks[name].apply_async(**message)
        finally:
            self._eager.waiting = None
