"""Finds turns that no worker continues, and wakes them, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from typing_extensions import override

from agentapi.ids import PARTITIONS, partition_of
from agentapi.stores.answers import (
    LONGEST_GRACE,
    LONGEST_IN_LINE,
    LONGEST_ROUSE,
    NEW_FLEET,
    ROUSED_A_SECOND,
    Election,
    Ending,
    Perished,
)
from agentapi.stores.calls import Errand
from agentapi.stores.in_memory.endings import BY_DEADLINE
from agentapi.stores.in_memory.part import InMemoryPart
from agentapi.stores.lease import Wakeup
from agentapi.stores.protocol import SweepStore
from agentapi.stores.redis.codec import ending_event
from agentapi.stores.refusals import missed_deadline
from agentapi.turns import TurnError, TurnStatus
from agentapi.turns.marks import MarkKind


class InMemorySweep(InMemoryPart, SweepStore):
    """The `SweepStore` of eager mode."""

    @property
    @override
    def sharded(self) -> bool:
        return False

    @override
    def expire(self, turn_id: str) -> Wakeup | None:
        with self._state.changed:
            entry = self._state.turns.get(turn_id)
            if entry is None:
                return None
            if entry.committed == BY_DEADLINE:
                return entry.following
            turn = entry.turn
            passed = turn.deadline_at is not None and turn.deadline_at <= self._state.now()
            if not (entry.never_claimed and passed) or turn.cancel_requested:
                return None
            why = missed_deadline()
            error = TurnError(code=why.code, message=str(why))
            entry.turn = replace(turn, error=error)
            conversation = self._state.conversations[turn.conversation_id]
            ending = Ending(status=TurnStatus.FAILED, error=error)
            return self._endings.end(
                entry, conversation, ending.status, BY_DEADLINE, ending_event(ending)
            )

    @override
    def perish(self, conversation_id: str, turn_id: str, process: str) -> Perished | None:
        with self._state.changed:
            entry = self._state.turns.get(turn_id)
            if entry is None:
                return None
            conversation = self._state.conversations[conversation_id]
            lease = conversation.lease
            if entry.perished != process:
                if lease is None or lease.turn_id != turn_id or not lease.token.startswith(process):
                    return None
                conversation.lease, conversation.due = None, self._state.now()
                entry.lose()
                entry.perished = process
                entry.turn = replace(entry.turn, deaths=entry.turn.deaths + 1)
                entry.note(self._state.now(), MarkKind.DIED, entry.turn.deaths)
            return Perished(deaths=entry.turn.deaths, wakeup=self._state.wakeup(turn_id))

    @override
    def orphan(self, process: str) -> list[str]:
        with self._state.changed:
            freed = []
            for conversation_id, conversation in self._state.conversations.items():
                lease = conversation.lease
                if lease is not None and lease.token.startswith(process):
                    lease.expires = conversation.due = self._state.now()
                    freed.append(conversation_id)
            return freed

    @override
    def elect(self, candidate: str, *, ttl: float, swept: bool = False) -> Election:
        with self._state.changed:
            now = self._state.now()
            groups = self._state.shares.call(candidate, now, ttl, swept=swept)
            return Election(groups=groups, since_sweep=self.since_sweep())

    @override
    def since_sweep(self) -> float | None:
        with self._state.changed:
            swept = self._state.shares.oldest_sweep()
            return None if swept is None else max(0.0, self._state.now() - swept)

    @override
    def agree(self, queues: int) -> int:
        with self._state.changed:
            now = self._state.now()
            if self._state.agreed is not None:
                recorded, at = self._state.agreed
                lives = self._state.shares.taken(now) or now - at < NEW_FLEET
                if recorded != queues and lives:
                    return recorded
            self._state.agreed = (queues, now)
            return queues

    @override
    def resign(self, candidate: str) -> None:
        with self._state.changed:
            self._state.shares.resign(candidate)

    @override
    def overdue(
        self, limit: int = 1000, partitions: Sequence[int] = range(PARTITIONS)
    ) -> list[str | Errand]:
        with self._state.changed:
            now = self._state.now()
            late: list[str] = [
                conversation_id
                for conversation_id, conversation in self._state.conversations.items()
                if conversation.due is not None and conversation.due <= now
                if partition_of(conversation_id) in partitions
            ]
            errands = [
                errand
                for errand, due in self._state.errands.items()
                if due <= now and errand.partition in partitions
            ]
            return [*late[:limit], *errands[:limit]]

    @override
    def claimed(self) -> dict[int, float]:
        with self._state.changed:
            return dict(self._state.claimed)

    @override
    def redispatch(
        self, conversation_ids: Iterable[str], claimed: Mapping[int, float]
    ) -> list[Wakeup]:
        with self._state.changed:
            found = [self._redispatch(c, claimed.get(partition_of(c))) for c in conversation_ids]
        return [wakeup for wakeup in found if wakeup is not None]

    def _redispatch(self, conversation_id: str, claimed: float | None) -> Wakeup | None:
        conversation = self._state.conversations[conversation_id]
        now, grace = self._state.now(), self._settings.dispatch_grace
        due = conversation.due
        if due is None or due > now:
            return None
        head = self._state.head(conversation)
        if head is None:
            return None
        entry = self._state.turns[head]
        sent = entry.dispatches > 0 or entry.never_claimed
        waits_since = due if entry.in_line is None else entry.in_line
        waited = now - waits_since
        overtaken = claimed is None or claimed > waits_since + 1
        if sent and not overtaken and waited < LONGEST_IN_LINE:
            entry.in_line = waits_since
            conversation.due = now + max(grace, waited)
            return None
        entry.in_line = None
        if entry.ready is None:
            first_wait = entry.never_claimed and entry.dispatches == 0
            entry.ready = waits_since - grace if first_wait else waits_since
        entry.dispatches += 1
        sent_before = entry.dispatches - (1 if entry.turn.attempt else 0)
        conversation.due = now + min(grace * 2**sent_before, LONGEST_GRACE)
        return self._state.wakeup(entry.turn.turn_id)

    @override
    def rouse(self, provider: str) -> int:
        with self._state.changed:
            waiting = sorted(self._state.waiting.pop(provider, ()))
            now, woken = self._state.now(), 0
            step = min(1 / ROUSED_A_SECOND, LONGEST_ROUSE / max(len(waiting), 1))
            for number, conversation_id in enumerate(waiting):
                woken += self._rouse(conversation_id, provider, now + step * number)
            return woken

    def _rouse(self, conversation_id: str, provider: str, wake: float) -> bool:
        conversation = self._state.conversations.get(conversation_id)
        head = conversation.inbox[0] if conversation and conversation.inbox else ""
        entry = self._state.turns.get(head)
        if conversation is None or entry is None or entry.turn.waiting_for is None:
            return False
        turn, waits = entry.turn, entry.turn.waiting_for
        later = turn.status is TurnStatus.PARKED and wake < (turn.wakes_at or 0)
        if provider not in waits.names or not later:
            return False
        entry.turn = replace(turn, wakes_at=wake, waiting_for=replace(waits, next_try_at=wake))
        conversation.due = wake
        return True

    @override
    def hasten(self, limit: int = 1000, partitions: Sequence[int] = range(PARTITIONS)) -> int:
        """No wake-up can be lost in one process, so there is no bound."""
        hastened = 0
        with self._state.changed:
            now = self._state.now()
            for conversation_id, conversation in self._state.conversations.items():
                if conversation.due is None or conversation.due <= now or not conversation.inbox:
                    continue
                if partition_of(conversation_id) not in partitions:
                    continue
                entry = self._state.turns.get(conversation.inbox[0])
                if entry is None:
                    continue
                sent = entry.dispatches > 0 or not entry.turn.attempt
                if entry.turn.status is TurnStatus.QUEUED and sent:
                    entry.dispatches, entry.in_line, conversation.due = 0, None, now
                    hastened += 1
        return hastened
