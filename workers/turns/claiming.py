"""The beginning of an attempt: a thread answers a wake-up and claims the turn."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Final

from agentapi.conversation.messages import UserMessage
from agentapi.engine.progress import TurnProgress
from agentapi.errors import ArchiveUnavailable, StoreUnavailable
from agentapi.logs import binding, line
from agentapi.stores import Claim, Refusal, RefusalReason, Unreadable, Wakeup, WorkerStore
from agentapi.turns.kinds import kind_of
from workers.dispatch import Dispatcher
from workers.outage import Outage, ride_out
from workers.turns import measuring, tracing
from workers.turns.claimed import ClaimedTurn, fields_of
from workers.turns.running import RunningTurn, RunningTurns
from workers.turns.summary import Summary, of_turn
from workers.turns.suspect import SuspectTurn
from workers.turns.unknown_agents import UnknownAgents
from workers.turns.unreadable import UnreadableTurns
from workers.turns.work import Works

log = logging.getLogger("agentapi.turn")

PASS_ON_DELAY: Final = 0.1
"""Seconds before a worker that is shutting down passes on a wake-up."""


@dataclass(frozen=True, kw_only=True)
class TurnClaimer:
    """Claims turns, in a thread.

    Attributes:
        works: The work for each kind of turn.
        process: The prefix of this process's claim tokens, by which the watchdog ends its leases.
        stopping: Whether the worker is shutting down.
        isolates: Whether suspect turns can be run in processes of their own.
        queues: How many queues the fleet has.
    """

    works: Works
    store: WorkerStore
    dispatcher: Dispatcher
    unknown: UnknownAgents
    unreadable: UnreadableTurns
    running: RunningTurns
    loop: asyncio.AbstractEventLoop
    threads: Executor
    process: str
    outage: Outage
    stopping: Callable[[], bool]
    isolates: Callable[[], bool]
    queues: int

    def claim(
        self, wakeup: Wakeup, *, owner: str, job: int = 0
    ) -> ClaimedTurn | SuspectTurn | Summary:
        """Answer a wake-up.

        Args:
            wakeup: Which turn, and which agent it was given to.
            owner: The worker's name.
            job: The pool's number for it, by which it can be stopped.

        Returns:
            The turn to run, here or in a separate process; or the state of the turn if there is
            nothing to run. If Redis is unreachable for too long that is ``store_unavailable``: the
            sweep wakes the turn again.
        """
        if self.stopping():
            return self._pass_on(wakeup)
        try:
            claim = self._claim(wakeup, owner)
        except StoreUnavailable as error:
            self.outage.begins(error)
            return {"status": error.code}
        except ArchiveUnavailable as error:
            # The turn keeps its place, and the sweep wakes it again.
            ids = {"conversation_id": wakeup.conversation_id, "turn_id": wakeup.turn_id}
            log.error(line("archive.unavailable", **ids, code=error.code))
            return {"status": error.code}
        match claim:
            case Refusal():
                return self._refused(claim, wakeup, owner, job)
            case Unreadable():
                return self.unreadable.settle(claim)
            case Claim():
                return self._claimed(claim, job)

    def _pass_on(self, wakeup: Wakeup) -> Summary:
        # Celery took it from the broker although the worker is shutting down. Until Celery stops
        # taking tasks, the wake-up may come back, hence the delay.
        time.sleep(PASS_ON_DELAY)
        self.dispatcher.send(wakeup)
        return {"status": "passed_on"}

    def _claim(self, wakeup: Wakeup, owner: str) -> Claim | Unreadable | Refusal:
        # One token for all repeats: a claim whose answer was lost gets the same lease again. Its
        # prefix lets the watchdog end all leases of this process.
        token = f"{self.process}:{uuid.uuid4().hex}"
        return ride_out(
            lambda: self.store.claim(
                wakeup.conversation_id,
                wakeup.turn_id,
                owner=owner,
                token=token,
                window=self.works[kind_of(wakeup.agent)].window(wakeup.agent),
                # Without a watchdog this is eager mode, or the process that was forked for one
                # turn.
                isolated=not self.isolates(),
            ),
            outage=self.outage,
        )

    def _refused(
        self, refusal: Refusal, wakeup: Wakeup, owner: str, job: int
    ) -> SuspectTurn | Summary:
        ids = {"conversation_id": wakeup.conversation_id, "turn_id": wakeup.turn_id}
        log.debug(line("turn.refused", **ids, reason=refusal.reason))
        if refusal.reason is RefusalReason.SUSPECT:
            return SuspectTurn(
                job=job,
                conversation_id=wakeup.conversation_id,
                turn_id=wakeup.turn_id,
                agent=wakeup.agent,
                # Not this worker's prefix: the death of that process must not be taken for this
                # one's.
                process=uuid.uuid4().hex,
                owner=owner,
            )
        return of_turn(refusal.turn) if refusal.turn else {"status": "missing"}

    def _claimed(self, claim: Claim, job: int) -> ClaimedTurn | Summary:
        turn = claim.turn
        work = self.works[turn.kind]
        progress = TurnProgress(
            user=UserMessage(
                content=turn.input, attachments=tuple(turn.attachments), turn_id=turn.turn_id
            ),
            steps=list(claim.steps),
            prior=[replace(message, turn_id=turn.turn_id) for message in turn.prior],
        )
        span = tracing.begun(claim)
        fields = fields_of(claim, span)
        # After the claim, because only the journal says which agent must continue the turn.
        if work.lacks_agent(claim, progress):
            with binding(fields):
                left = self.unknown.leave(claim)
            if left is not None:
                tracing.left(span, left)
                return left
        measuring.claimed(claim, self.queues)
        running = RunningTurn(lease=claim.lease, loop=self.loop, threads=self.threads, job=job)
        claimed = ClaimedTurn(
            work=work, claim=claim, running=running, progress=progress, span=span, fields=fields
        )
        running.about = claimed.now
        # From here on the heartbeat renews the lease, until the closer removes the turn.
        self.running.add(running)
        return claimed
