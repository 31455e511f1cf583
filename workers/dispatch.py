"""Sending the Celery task that wakes a worker for a turn."""

from __future__ import annotations

import logging
import threading
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from agentapi.broker.wire import task_message
from agentapi.logs import line
from agentapi.settings import Settings
from agentapi.stores import Wakeup

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger("agentapi.dispatch")


class Dispatcher:
    """Sends wake-ups. One that is lost is sent again by the sweep, so none is waited for."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._eager = threading.local()
        self._away = False
        self.returns = 0
        """How often the broker came back. What was sent to it before may be lost."""

    @cached_property
    def _errors(self) -> tuple[type[Exception], ...]:
        """What says that the broker is away. Only some of kombu's calls wrap their transport's own
        errors.
        """
        connection = self._app.connection_for_write()
        own = (*connection.connection_errors, *connection.channel_errors)
        return (OperationalError, OSError, *own)

    def send(self, wakeup: Wakeup | None) -> None:
        """Send a wake-up, if there is one. A broker out of reach is logged, not raised."""
        if wakeup is None:
            return
        if self._settings.eager:
            self._run_here(wakeup)
            return
        try:
            self._app.send_task(**self._message(wakeup))
        except self._errors as error:
            self._note(error)
        else:
            self._note(None)

    @property
    def away(self) -> bool:
        """Whether the broker was out of reach when it was last asked."""
        return self._away

    def reachable(self) -> bool:
        """Whether the broker takes messages now. Asked only after one could not be sent."""
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
                # Declared as workers declare it, since that tells how many it holds. (kombu 5.7:
                # a passive declaration fails on Redis with a global_keyprefix, which its EXISTS
                # goes without.)
                declared = producer.channel.queue_declare(queue, durable=True, auto_delete=False)
        except self._errors as error:
            self._note(error)
            return False
        return bool(declared.message_count)

    def _note(self, error: Exception | None) -> None:
        """Say once that the broker is away, and once that it is back."""
        if error is not None and not self._away:
            log.warning(line("broker.away", error=type(error).__name__))
        elif error is None and self._away:
            log.warning(line("broker.back"))
            self.returns += 1
        self._away = error is not None

    def _message(self, wakeup: Wakeup) -> dict[str, object]:
        return task_message(wakeup.conversation_id, wakeup.turn_id, wakeup.agent, self._settings)

    def _run_here(self, wakeup: Wakeup) -> None:
        """Run the turn and those behind it one after the other, not inside each other."""
        waiting: deque[Wakeup] | None = getattr(self._eager, "waiting", None)
        if waiting is not None:
            waiting.append(wakeup)
            return
        self._eager.waiting = deque([wakeup])
        try:
            while self._eager.waiting:
                message = self._message(self._eager.waiting.popleft())
                name = str(message.pop("name"))
                for publishing in ("retry", "retry_policy", "queue", "declare"):
                    message.pop(publishing)
                self._app.tasks[name].apply_async(**message)
        finally:
            self._eager.waiting = None
