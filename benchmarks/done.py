"""When turns are done, seen from outside: by the messages in Redis, alike for all contenders."""

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
    """When turns were seen done.

    Attributes:
        times: Of each, on `time.perf_counter`, the earliest first.
    """

    times: Sequence[float]

    @property
    def last(self) -> float:
        """When all were done."""
        return self.times[-1]

    def rate_after(self, number: int) -> float:
        """Turns a second from the given one to the last, so that the start does not count.

        Args:
            number: Counting from 1, less than there are.
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
    """Wait until each conversation has so many messages.

    Args:
        entrant: Who runs them.
        conversations: In the order in which they were enqueued.
        length: Messages of a conversation whose turn is done.
        timeout: Seconds.
        at_once: How many of the oldest are looked at; in the end all must be done.
        every: Seconds between looks.
        meanwhile: Called between looks.

    Raises:
        TimeoutError: They are not done in time.
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
        # Many were done at once: more of them may be.
        if len(found) < len(head) // 2 or not rest:
            meanwhile()
            time.sleep(every)


def wait_until_taken(entrant: Entrant, timeout: float) -> float:
    """Wait until Celery's queue is empty, for a task that leaves nothing; when it was.

    Raises:
        TimeoutError: It is not in time.
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
