"""Errands: work on a turn of another partition, which no single script can reach.

An errand starts children, delivers a reply, cancels a turn, or ends it at its deadline. A script
stores it with the transition that causes it. The worker that ran the transition carries the errand
out right after it; if that worker dies, the sweep does. Each errand may be carried out twice.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from agentapi import FinishReason, Settings
from agentapi.errors import AgentAPIError, TurnNotFound
from agentapi.ids import partition_of_turn
from agentapi.logs import line
from agentapi.stores import Accepted, Errand, ErrandKind, TurnStore, Wakeup
from agentapi.stores.enqueueing import enqueue_traced
from agentapi.turns import (
    ChildReply,
    ChildTurn,
    NewTurn,
    RequestOptions,
    Turn,
    TurnError,
    TurnStatus,
)
from workers.dispatch import Dispatcher

log = logging.getLogger("agentapi.errands")


@dataclass(frozen=True, kw_only=True, slots=True)
class Errands:
    """Carries errands out."""

    settings: Settings
    store: TurnStore
    dispatcher: Dispatcher

    def of_turn(self, kind: ErrandKind, turn_id: str) -> None:
        """Carry out an errand that a turn of this worker has just left.

        An unreachable Redis is not an error here: the sweep carries the errand out later.
        """
        errand = Errand(kind=kind, turn_id=turn_id, partition=partition_of_turn(turn_id))
        try:
            self.carry_out(errand)
        except AgentAPIError as error:
            log.warning(line("errand.left", kind=kind, turn_id=turn_id, error=error))

    def carry_out(self, errand: Errand) -> None:
        """Carry an errand out, remove it, and wake the turns that it concerns.

        Raises:
            StoreUnavailable: Redis is unreachable; the errand stays.
        """
        match errand.kind:
            case ErrandKind.START:
                wakeups = self._start_children(errand.turn_id)
            case ErrandKind.DELIVER:
                wakeups = self._deliver(errand.turn_id)
            case ErrandKind.CANCEL:
                wakeups = self._cancel(errand.turn_id)
            case ErrandKind.EXPIRE:
                wakeup = self._expire(errand.turn_id)
                wakeups = [wakeup] if wakeup else ()
        # Only now: a crash before this line repeats the errand, and every transition answers a
        # repeat with its first answer. Wake-ups lost after it are sent again by the sweep.
        self.store.calls.settle([errand])
        for wakeup in wakeups:
            self.dispatcher.send(wakeup)

    def _expire(self, turn_id: str) -> Wakeup | None:
        wakeup = self.store.expire(turn_id)
        turn = self._turn(turn_id)
        if turn is not None and turn.status is TurnStatus.FAILED and turn.error is not None:
            retry = f"agentapi retry {turn_id}"
            where = {"conversation_id": turn.conversation_id, "turn_id": turn_id}
            log.warning(line("turn.failed", **where, error=turn.error.code, retry_with=retry))
        return wakeup

    def _start_children(self, turn_id: str) -> Sequence[Wakeup]:
        parent = self._turn(turn_id)
        if parent is None or parent.status.ended:
            return ()
        # Only children that the parent still waits for: a repeat must not start those that have
        # answered.
        children = [child for child, awaited in self.store.calls.children(turn_id) if awaited]
        # A child's id derives from its parent and call, so a repeat finds the existing turn.
        turns = [self._new_turn(parent, child) for child in children]
        answers = enqueue_traced(self.store, turns, cause=parent)
        if self._has_ended(turn_id):
            # The parent ended in the meantime, and its cancellation may have missed the children.
            return [wakeup for child in children for wakeup in self._cancel(child.turn_id)]
        wakeups: list[Wakeup | None] = []
        for child, answer in zip(children, answers, strict=True):
            if isinstance(answer, Accepted):
                wakeups.append(answer.wakeup)
            else:
                # The parent waits for each child: one that cannot begin must answer too.
                refused = ChildReply(
                    turn_id=child.turn_id,
                    status=TurnStatus.FAILED,
                    error=TurnError(code=answer.code, message=str(answer)),
                )
                wakeups.append(self.store.calls.deliver(turn_id, refused))
        return [wakeup for wakeup in wakeups if wakeup is not None]

    def _new_turn(self, parent: Turn, child: ChildTurn) -> NewTurn:
        return NewTurn(
            turn_id=child.turn_id,
            conversation_id=child.conversation_id,
            agent=child.agent,
            input=child.input,
            user_id=parent.user_id,
            tenant_id=parent.tenant_id,
            timeout=child.timeout,
            deadline_at=parent.deadline_at,
            parent_id=parent.turn_id,
            depth=parent.depth + 1,
            budget=child.budget,
            # A delegated turn is stored no longer than the turn that delegated it.
            options=None if parent.stored else RequestOptions(store=False, decided=True),
            context=child.context_of(parent.context),
            idle_time=None if child.lasting else self._idle_time(parent),
        )

    def _idle_time(self, parent: Turn) -> float:
        settings = self.settings
        return settings.turn_retention if parent.stored else settings.unstored_retention

    def _deliver(self, turn_id: str) -> Sequence[Wakeup]:
        child = self._turn(turn_id)
        # A child that no longer exists cannot answer. One that was retried meanwhile answers at its
        # next end.
        if child is None or child.parent_id is None or not child.status.ended:
            return ()
        reply = ChildReply(
            turn_id=turn_id,
            status=child.status,
            text=child.text or "",
            error=child.error,
            usage=child.usage,
            steps=child.steps,
            finish_reason=child.finish_reason or FinishReason.STOP,
        )
        wakeup = self.store.calls.deliver(child.parent_id, reply)
        return [wakeup] if wakeup else ()

    def _cancel(self, turn_id: str) -> Sequence[Wakeup]:
        try:
            wakeup = self.store.cancel(turn_id).wakeup
        except TurnNotFound:
            return ()
        return [wakeup] if wakeup else ()

    def _has_ended(self, turn_id: str) -> bool:
        turn = self._turn(turn_id)
        return turn is None or turn.status.ended

    def _turn(self, turn_id: str) -> Turn | None:
        try:
            return self.store.turn(turn_id)
        except TurnNotFound:
            return None
