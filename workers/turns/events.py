"""Events of running turns, batched and flushed for all turns of the process together."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from agentapi.errors import StoreUnavailable
from agentapi.logs import line
from agentapi.stores import Lease, NewEvent, WorkerStore
from agentapi.supervision import Service, Supervisor
from agentapi.turns import EventType

log = logging.getLogger("agentapi.events")

FLUSH_INTERVAL: Final = 0.02
"""Seconds for which text is batched: too short to be noticed, long enough to save round trips."""


@dataclass
class _Pending:
    events: list[NewEvent] = field(default_factory=list)

    def add(self, kind: EventType, data: Mapping[str, Any]) -> None:
        last = self.events[-1] if self.events else None
        joined = _joined(last, data) if last is not None and last.type is kind else None
        if joined is not None:
            self.events[-1] = NewEvent(type=kind, data=joined)
        else:
            self.events.append(NewEvent(type=kind, data=data))


def _joined(last: NewEvent, data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The data of two pieces of the same text; None if they do not belong together."""
    if last.type is EventType.DELTA and last.data.keys() == data.keys():
        return {**data, "text": last.data["text"] + data["text"]}
    if last.type is EventType.CALL_DELTA and last.data["index"] == data["index"]:
        return {**data, "arguments": last.data["arguments"] + data["arguments"]}
    return None


class EventLog:
    """Coalesces pieces of text, and writes them in the background.

    Steps and endings add their events in their own scripts, so code that writes them flushes first.
    Only one flush runs at a time, so that a turn's events keep their order.
    """

    def __init__(self, store: WorkerStore, supervisor: Supervisor) -> None:
        self._store = store
        self._pending: dict[Lease, _Pending] = defaultdict(_Pending)
        self._batches: dict[Lease, int] = {}
        self._unsent: list[tuple[Lease, int, list[NewEvent]]] = []
        # Guards `_pending` and `_batches`. Code that needs both locks takes `_flushing` first.
        self._lock = threading.Lock()
        # Guards `_unsent`, and is held while Redis is asked: two flushes could otherwise overtake
        # each other.
        self._flushing = threading.Lock()
        self._wake = threading.Event()
        self._first_piece = threading.Event()
        self._service = supervisor.thread("agentapi-events", self._run)

    def start(self) -> None:
        """Start the thread that flushes."""
        self._service.start()

    def stop(self) -> None:
        """Flush and end the thread."""
        self._service.stop(wake=self._look)

    def _look(self) -> None:
        self._first_piece.set()
        self._wake.set()

    def add(self, lease: Lease, kind: EventType, data: Mapping[str, Any]) -> None:
        """Add an event, without blocking.

        Raises:
            TypeError: It cannot be serialised. Raised here, so that only its own turn fails.
        """
        orjson.dumps(dict(data))
        with self._lock:
            self._pending[lease].add(kind, data)
            # Readers notice the delay before the first word more than any later one.
            first = lease not in self._batches
        if first:
            self._first_piece.set()
        self._wake.set()

    def flush(self, lease: Lease | None = None) -> None:
        """Write the events added so far. Events that cannot be written now are kept.

        Args:
            lease: Whose events must be written; those of all turns when not given.

        Raises:
            StoreUnavailable: Redis is unreachable, or the shard of such events is.
        """
        if not self._pending and not self._unsent:
            return
        with self._flushing:
            self._take()
            if not self._unsent:
                return
            # A retry sends the same batch numbers: Redis may have taken them before the failure.
            try:
                left = self._store.emit(self._unsent)
            except StoreUnavailable:
                raise
            except Exception:
                self._send_one_by_one()
                left = []
            self._unsent = [self._unsent[number] for number in left]
            if any(lease is None or unsent == lease for unsent, *_ in self._unsent):
                raise StoreUnavailable("a shard of Redis is out of reach: its events wait")

    def _send_one_by_one(self) -> None:
        """Send batches one by one after one was refused, so that it does not hold up the others."""
        while self._unsent:
            lease = self._unsent[0][0]
            try:
                self._store.emit(self._unsent[:1])
            except StoreUnavailable:
                raise
            except Exception as error:
                kind = type(error).__name__
                ids = {"conversation_id": lease.conversation_id, "turn_id": lease.turn_id}
                log.error(line("events.dropped", **ids, error=kind))
            del self._unsent[0]

    def forget(self, lease: Lease) -> None:
        """Drop what is left of a turn that has ended here."""
        with self._lock:
            self._pending.pop(lease, None)
            self._batches.pop(lease, None)

    def _take(self) -> None:
        """Move the pending events to the unsent ones."""
        with self._lock:
            taken: list[tuple[Lease, int, list[NewEvent]]] = []
            for lease, pending in self._pending.items():
                # The store keeps the newest number with the lease and ignores a batch that it has.
                number = self._batches[lease] = self._batches.get(lease, 0) + 1
                taken.append((lease, number, pending.events))
            # In this order: a writer that asks without a lock whether there is anything to flush
            # must never see both empty while events are on their way.
            self._unsent += taken
            self._pending.clear()

    def _run(self, service: Service) -> None:
        # After a restart, flush events that an earlier round added, without waiting for another.
        self._wake.set()
        stopping = False
        while not stopping:
            self._wake.wait()
            self._wake.clear()
            self._first_piece.clear()
            stopping = service.stopping
            try:
                self.flush()
            except StoreUnavailable as error:
                log.debug(line("events.delayed", error=error))
                self._wake.set()
            service.progress()
            # Wait only after the flush: the first piece goes out immediately, the rest in batches.
            self._first_piece.wait(FLUSH_INTERVAL)
