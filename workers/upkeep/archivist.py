"""Moves idle conversations and ended turns to the archive.

The lead worker does it. If two do it at the same time, around an election, no harm is done.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final

from typing_extensions import override

from agentapi.errors import ArchiveUnavailable, ServerUnavailable, StoreUnavailable
from agentapi.logs import line
from agentapi.metrics import recorder
from agentapi.metrics.catalog import ARCHIVE_MOVES
from agentapi.settings import Settings
from agentapi.stores.redis.archiving import RedisArchiving
from agentapi.supervision import Service, Supervisor
from workers.outage import Outage

STEP: Final = 2.0
"""Seconds between two steps of the search. A step examines a thousand keys."""

LONGEST_REST: Final = 60.0
"""Seconds between two searches, unless `archive_after` is short."""

MOVE_REST: Final = 0.005
"""Seconds between two conversations: at most 200 per second, to leave Redis time for other
clients."""

AWAY_REST: Final = 10.0
"""Seconds before an unavailable archive is tried again."""

CLEANING: Final = 5
"""Number of steps between two deletions of invalid copies."""

TURNS_REST: Final = 10.0
"""Seconds between two searches for turns, when the last search has moved all."""

TURNS_AGAIN: Final = 600.0
"""Seconds after which turns that could not move are examined again."""

log = logging.getLogger("agentapi.archive")


class Archivist(ABC):
    """A thread that moves things to the archive, step by step, while its worker leads."""

    NAME: ClassVar[str]

    def __init__(
        self,
        settings: Settings,
        archiving: RedisArchiving,
        outage: Outage,
        leads: Callable[[], bool],
        *,
        supervisor: Supervisor,
    ) -> None:
        """Create the thread; it does not start yet.

        Args:
            settings: The idle time after which a conversation moves.
            archiving: Moves it.
            outage: Logs that Redis is unreachable.
            leads: Whether this worker is the lead.
            supervisor: Watches the thread.
        """
        self._archiving = archiving
        self._outage = outage
        self._leads = leads
        self._pause = min(LONGEST_REST, settings.archive_after / 10)
        self._away = False
        self._service = supervisor.thread(self.NAME, self._run)

    def start(self) -> None:
        """Start the thread."""
        self._service.start()

    def stop(self) -> None:
        """End the thread."""
        self._service.stop()

    @abstractmethod
    def step(self) -> float:
        """Move some of what can be moved; returns how long to rest.

        Raises:
            ArchiveUnavailable: The archive cannot be reached.
            StoreUnavailable: Redis cannot be reached.
        """

    def _run(self, service: Service) -> None:
        rest = min(STEP, self._pause)
        while not service.wait(rest):
            try:
                rest = self.step()
            except StoreUnavailable as error:
                self._outage.begins(error)
                rest = STEP
            except ArchiveUnavailable as error:
                self._note(error)
                rest = AWAY_REST
            service.progress()

    def _note(self, error: ArchiveUnavailable | None) -> None:
        """Log once when the archive becomes unavailable, and once when it is back."""
        if error is not None and not self._away:
            log.error(line("archive.away", error=error))
        elif error is None and self._away:
            log.warning(line("archive.reached"))
        self._away = error is not None


class ConversationArchivist(Archivist):
    """Looks for conversations that nobody uses, and moves them."""

    NAME = "agentapi-archive"

    _search: Iterator[Sequence[str]] | None = None
    _steps = 0

    @override
    def step(self) -> float:
        if not self._leads():
            self._search = None
            return STEP
        if self._steps % CLEANING == 0:
            self._archiving.discard()
        self._steps += 1
        self._search = self._search or self._archiving.cold()
        found = next(self._search, None)
        if found is None:
            self._search = None
            self._archiving.expire()
            return self._pause
        for conversation_id in found:
            if self._service.wait(MOVE_REST) or not self._leads():
                break
            self._move(conversation_id)
        return min(STEP, self._pause)

    def _move(self, conversation_id: str) -> None:
        """Move one conversation. If it cannot be moved, the others still are."""
        try:
            if self._archiving.move(conversation_id):
                log.debug(line("archive.moved", conversation_id=conversation_id))
                self._note(None)
        except ServerUnavailable:
            raise
        except Exception as error:
            recorder().count(ARCHIVE_MOVES, "out", "failed")
            name = type(error).__name__
            log.error(line("archive.failed", conversation_id=conversation_id, error=name))


class TurnArchivist(Archivist):
    """Moves turns that have ended, until none is left to move."""

    NAME = "agentapi-archive-turns"

    _began = 0.0

    @override
    def step(self) -> float:
        turns = self._archiving.turns
        if not self._leads():
            return STEP
        if time.monotonic() - self._began > TURNS_AGAIN or not self._began:
            turns.begin()
            self._began = time.monotonic()
        more = True
        while more and self._leads() and not self._service.wait(MOVE_REST):
            moved, more = turns.move_some()
            if moved:
                log.debug(line("archive.turns", moved=moved))
                self._note(None)
            self._service.progress()
        turns.expel()
        turns.expire()
        return min(TURNS_REST, self._pause)
