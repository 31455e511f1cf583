"""Detects when turns are done by their messages in Redis, in the same way for all contenders."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.contest import Entrant

LOOK_EVERY: Final = 0.02

_COUNT: Final = """
local done = {}
for i = 1, #KEYS do
  if redis.call('LLEN', KEYS[i]) >= tonumber(ARGV[1]) then
    done[#done + 1] = i
  end
end
return done
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """When turns were observed to be done.

    Attributes:
        times: Time of each by `time.perf_counter`, earliest first.
    """

    times: Sequence[float]

    @property
    def last(self) -> float:
        """When the last turn was done."""
        return self.times[-1]

    def rate_after(self, number: int) -> float:
        """Turns per second from the given turn to the last, which leaves out the start.

        Args:
            number: Number of the turn, from 1; less than the number of turns.
        """
        return (len(self.times) - number) / (self.last - self.times[number - 1])


def wait_until_done(
    entrant: Entrant,
    conversations: Sequence[str],
    *,
    length: int,
    timeout: float,
    at_once: int = 64,
    every: float = LOOK_EVERY,
    meanwhile: Callable[[], None] = lambda: None,
) -> Done:
    """Wait until each conversation has the given number of messages.

    Args:
        entrant: The contender that runs the turns.
        conversations: The conversations, in the order in which they were enqueued.
        length: Number of messages in a conversation whose turn is done.
        timeout: Maximum seconds to wait.
        at_once: How many of the oldest unfinished conversations are checked at a time.
        every: Seconds between checks.
        meanwhile: Called between checks.

    Raises:
        TimeoutError: The turns are not done in time.
    """
    keys = [entrant.contender.key_of(conversation) for conversation in conversations]
    times: list[float] = []
    deadline = time.perf_counter() + timeout
    count: Any = entrant.client.register_script(_COUNT)
    waiting, total = keys, len(keys)
    while True:
        head, rest = waiting[:at_once], waiting[at_once:]
        found = {number - 1 for number in count(keys=head, args=[length])}
        waiting = [key for number, key in enumerate(head) if number not in found] + rest
        now = time.perf_counter()
        times += [now] * (total - len(waiting) - len(times))
        if not waiting:
            return Done(times=times)
        if now > deadline:
            raise TimeoutError(
                f"{entrant.contender.name}: {len(waiting)} of {total} turns are not done "
                f"after {timeout:g} s"
            )
        # All of these were done, so the next ones may be too.
        if len(found) < len(head) // 2 or not rest:
            meanwhile()
            time.sleep(every)


def wait_until_taken(entrant: Entrant, timeout: float) -> float:
    """Wait until Celery's queue is empty, for a task without a result; returns the time.

    Raises:
        TimeoutError: The queue is not empty in time.
    """
    deadline = time.perf_counter() + timeout
    while True:
        pipeline = entrant.client.pipeline(transaction=False)
        pipeline.llen("celery")
        pipeline.hlen("unacked")
        if not any(pipeline.execute()):
            return time.perf_counter()
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{entrant.contender.name}: tasks wait after {timeout:g} s")
        time.sleep(LOOK_EVERY)
