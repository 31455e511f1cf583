"""When turns are done, seen from outside: by the messages in Redis, alike for all contenders."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.contest import Entrant

LOOK_EVERY: Final = 0.02
_AT_ONCE: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """When the first and the last of some turns were seen done, on `time.perf_counter`."""

    first: float
    last: float


def wait_until_done(
    entrant: Entrant,
    conversations: Sequence[str],
    *,
    length: int,
    timeout: float,
    meanwhile: Callable[[], None] = lambda: None,
) -> Done:
    """Wait until each conversation has so many messages.

    Args:
        entrant: Who runs them.
        conversations: In the order in which they were enqueued.
        length: Messages of a conversation whose turn is done.
        timeout: Seconds.
        meanwhile: Called between looks.

    Raises:
        TimeoutError: They are not done in time.
    """
    keys = [entrant.contender.key_of(conversation) for conversation in conversations]
    first: float | None = None
    deadline = time.perf_counter() + timeout
    waiting, total = keys, len(keys)
    while True:
        # A few of the oldest are enough: in the end all must be done.
        head, rest = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
        lengths = _lengths(entrant, head)
        waiting = [key for key, found in zip(head, lengths, strict=True) if found < length] + rest
        now = time.perf_counter()
        if first is None and len(waiting) < total:
            first = now
        if not waiting:
            return Done(first=first or now, last=now)
        if now > deadline:
            raise TimeoutError(
                f"{entrant.contender.name}: {len(waiting)} of {total} turns are not done "
                f"after {timeout:g} s"
            )
        # Many were done at once: more of them may be.
        if len(waiting) - len(rest) > _AT_ONCE // 2 or not rest:
            meanwhile()
            time.sleep(LOOK_EVERY)


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


def _lengths(entrant: Entrant, keys: Sequence[str]) -> list[int]:
    pipeline = entrant.client.pipeline(transaction=False)
    for key in keys:
        pipeline.llen(key)
    lengths: list[int] = pipeline.execute()
    return lengths
