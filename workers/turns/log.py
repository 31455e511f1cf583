"""The turn log of a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agentapi.errors import JournalBehind
from agentapi.stores import Recorded, WorkerStore
from agentapi.turns import EventType, Step
from workers.outage import Outage, ride_out
from workers.turns.events import EventLog
from workers.turns.running import RunningTurn, StopReason

T = TypeVar("T")


@dataclass(kw_only=True)
class WorkerLog:
    """The `TurnLog` of a worker: steps into the journal, text into the event stream.

    Attributes:
        journal: The recorded steps of the turn.
        steered: Whether messages wait to join the turn.
    """

    running: RunningTurn
    store: WorkerStore
    events: EventLog
    journal: list[Step]
    attempt: int
    outage: Outage
    steered: bool = False

    async def record(self, step: Step, steps: list[Step]) -> None:
        """See `TurnLog.record`. The store's answer also says whether the turn was cancelled."""
        # The index makes a repeat safe: the store answers without writing when it is taken.
        index = len(self.journal)
        self.journal.append(step)

        def write() -> Recorded:
            # First the text of the step, since the script adds the event of its end (promise 10).
            self.events.flush(self.running.lease)
            recorded = self._behind(
                index, lambda: self.store.record(self.running.lease, index, step)
            )
            # Here and not after the await: readers have seen the step's event, so a turn that is
            # stopped meanwhile must keep the step.
            steps.append(step)
            return recorded

        # Cancelled only after the step is recorded, so that its cost is not lost.
        recorded = await self.call(write)
        self.steered = recorded.steered
        if recorded.cancel:
            self.running.stop(StopReason.CANCELLED)

    async def joined(self, steps: list[Step]) -> None:
        """See `TurnLog.joined`. Costs nothing unless the store has reported waiting messages."""
        if not self.steered:
            return
        index = len(self.journal)

        def take() -> None:
            self.events.flush(self.running.lease)
            taken = self._behind(index, lambda: self.store.steer(self.running.lease, index))
            # Here and not after the await: if the turn is stopped meanwhile, its ending must have
            # these messages, which have stopped being turns of their own (promise 3).
            self.journal += taken
            steps.extend(taken)

        await self.call(take)
        self.steered = False

    def _behind(self, index: int, write: Callable[[], T]) -> T:
        """Write the steps after the first `index` steps of the journal."""
        try:
            return write()
        except JournalBehind as gap:
            # A failover kept the lease but lost steps recorded under it: record them again.
            for missing in range(gap.length, index):
                self.store.record(self.running.lease, missing, self.journal[missing])
            return write()

    async def call(self, function: Callable[[], T]) -> T:
        """Call Redis in a thread, and wait while it is unreachable."""
        return await self.running.call(
            lambda: ride_out(
                function, outage=self.outage, give_up=lambda: self.running.reason is not None
            )
        )

    async def delta(self, text: str, *, refusal: bool = False) -> None:
        """See `TurnLog.delta`."""
        data = {"text": text, "refusal": True} if refusal else {"text": text}
        self.events.add(self.running.lease, EventType.DELTA, data)

    async def call_delta(self, index: int, tool: str, arguments: str) -> None:
        """See `TurnLog.call_delta`."""
        data = {"index": index, "tool": tool, "arguments": arguments}
        self.events.add(self.running.lease, EventType.CALL_DELTA, data)

    async def reset(self) -> None:
        """See `TurnLog.reset`."""
        self.events.add(self.running.lease, EventType.RESET, {"attempt": self.attempt})
