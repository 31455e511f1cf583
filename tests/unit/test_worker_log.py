"""What a worker's log leaves to a turn that is stopped while the log writes."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentapi import UserMessage
from agentapi.stores import Recorded
from agentapi.stores.lease import Lease
from agentapi.turns import Step, UserStep
from workers.turns.log import WorkerLog
from workers.turns.running import RunningTurn, StopReason

STEP = UserStep(message=UserMessage(content="to the left", turn_id="t"))


class Store:
    """Lets messages join, and answers only when told."""

    def __init__(self) -> None:
        self.asked, self.answer = threading.Event(), threading.Event()

    def record(self, lease: Lease, index: int, step: Step) -> Recorded:
        self.asked.set()
        assert self.answer.wait(60)
        return Recorded(cancel=False, steered=False)

    def steer(self, lease: Lease, index: int) -> list[UserStep]:
        self.asked.set()
        assert self.answer.wait(60)
        return [STEP]


class Events:
    def flush(self, lease: Lease) -> None:
        pass


@pytest.mark.parametrize("writes", ["record", "joined"])
async def test_what_was_written_is_a_step_of_a_turn_that_is_stopped_meanwhile(writes: str) -> None:
    store, nothing = Store(), None
    parts: dict[str, Any] = {"store": store, "events": Events(), "outage": nothing}
    lease = Lease(conversation_id="c", turn_id="t", epoch=1, token="t", generation=0)
    with ThreadPoolExecutor(1) as threads:
        loop = asyncio.get_running_loop()
        running = RunningTurn(lease=lease, loop=loop, threads=threads)
        log = WorkerLog(running=running, journal=[], attempt=1, steered=True, **parts)
        steps: list[Step] = []

        async def run() -> None:
            await (log.record(STEP, steps) if writes == "record" else log.joined(steps))

        turn = asyncio.create_task(running.run(run))
        assert await asyncio.to_thread(store.asked.wait, 60)
        running.stop(StopReason.CANCELLED)
        # The cancellation reaches the turn before the store answers.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        store.answer.set()
        with pytest.raises(asyncio.CancelledError):
            await turn
    assert steps == [STEP]
    assert log.journal == [STEP]
