"""What is measured: processes from outside, their loops from inside, and Redis."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import redis

from tests.soak.trend import Bound, Trend, trend

MEGABYTE: Final = 2**20

UNITS: Final = {
    "memory": "MB",
    "files": "descriptors",
    "threads": "threads",
    "tasks": "tasks",
    "processes": "processes",
    "keys": "keys",
}


@dataclass
class Series:
    """All that was measured: for each kind and subject its points, time and value."""

    points: dict[tuple[str, str], list[tuple[float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    began: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def add(self, kind: str, subject: str, value: float) -> None:
        """Add a point for now."""
        self.points[kind, subject].append((self.elapsed, value))

    def trends(self, bounds: Mapping[str, Bound]) -> dict[tuple[str, str], Trend]:
        """The trend of each series of which enough was seen."""
        found = {key: trend(points, bounds[key[0]]) for key, points in sorted(self.points.items())}
        return {key: one for key, one in found.items() if one is not None}


def measure_process(series: Series, subject: str, pid: int, gauges: Path) -> None:
    """Memory, descriptors and threads of a process, and the tasks of its loop."""
    with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
        process = psutil.Process(pid)
        series.add("memory", subject, process.memory_info().rss / MEGABYTE)
        series.add("files", subject, process.num_fds())
        if pid != os.getpid():
            series.add("threads", subject, process.num_threads())
        series.add("tasks", subject, float((gauges / str(pid)).read_text()))


def measure_helpers(series: Series, subject: str, pid: int) -> None:
    """How many processes a worker has beside it, and their memory together."""
    with contextlib.suppress(psutil.NoSuchProcess):
        helpers = psutil.Process(pid).children(recursive=True)
        if helpers:
            memory = sum(rss_of(helper) for helper in helpers) / MEGABYTE
            series.add("memory", f"beside {subject}", memory)
            series.add("processes", f"beside {subject}", len(helpers))


def rss_of(process: psutil.Process) -> int:
    """Resident bytes; 0 for one that has just ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def marked(variable: str, value: str) -> list[int]:
    """Processes of this machine that have a variable with this value, wherever they hang."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(variable) == value:
                found.append(process.pid)
    return found


@dataclass(frozen=True, kw_only=True)
class KeyCount:
    """Keys in Redis, and those that should not be there.

    Attributes:
        expiring: How many expire, without the ids of operations (`op:`): those are remembered for
            an hour, so their number levels off only after it.
        lasting: How many do not, without lists and ends: each partition has some, and not more.
        left_behind: Names of those that belong to what has ended and do not expire.
    """

    expiring: int
    lasting: int
    left_behind: tuple[str, ...]


def count_keys(url: str) -> KeyCount:
    """Look at all keys.

    Raises:
        redis.RedisError: Redis is away.
    """
    client: Any = redis.Redis.from_url(url, decode_responses=True, socket_timeout=10)
    try:
        names = list(client.scan_iter(match="agentapi:*", count=1000))
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.pttl(name)
        lives = dict(zip(names, pipeline.execute(), strict=True))
        listed = (":list:", ":ends")
        lasting = [n for n, ttl in lives.items() if ttl == -1 and not any(k in n for k in listed)]
        left: list[str] = []
        for start in range(0, len(lasting), 500):
            some = lasting[start : start + 500]
            left += client.eval(_LEFT_BEHIND, len(some), *some)
        return KeyCount(
            expiring=sum(ttl >= 0 and ":op:" not in name for name, ttl in lives.items()),
            lasting=len(lasting),
            left_behind=tuple(left),
        )
    finally:
        client.close()


_LEFT_BEHIND: Final = """
local found = {}
for _, key in ipairs(KEYS) do
  local prefix, kind, rest = string.match(key, '^(agentapi:{%d+}):([tc]):(.*)$')
  local over = string.find(key, '^agentapi:wake:')
  if kind == 't' then
    local turn = prefix .. ':t:' .. string.match(rest, '^[^:]*')
    local status = redis.call('HGET', turn, 'status')
    if status == 'merged' then
      -- A message that joined another's turn is remembered as long as that.
      turn = prefix .. ':t:' .. (redis.call('HGET', turn, 'into') or '')
      status = redis.call('HGET', turn, 'status')
    end
    over = not (status == 'queued' or status == 'running' or status == 'parked')
  elseif kind == 'c' then
    local conversation = prefix .. ':c:' .. string.match(rest, '^(.*):')
    local ttl = redis.call('HGET', conversation .. ':meta', 'ttl')
    over = redis.call('EXISTS', conversation .. ':inbox') == 0
      and (ttl or redis.call('EXISTS', conversation .. ':lease') == 1)
  end
  if over and redis.call('PTTL', key) == -1 then
    found[#found + 1] = key
  end
end
return found
"""
"""Which of these keys do not expire though what they belong to has ended; in one look, since
conversations come and go. A reader's stream (wake) may lose its reader at any time."""


def patterns(names: list[str] | tuple[str, ...]) -> dict[str, int]:
    """Names of keys by what kind they are: ids and numbers are left out."""
    kinds: Counter[str] = Counter()
    for name in names:
        parts = name.split(":")
        if name.startswith("agentapi:{") and len(parts) > 3:
            # A turn's own key ends with its id, all others with what they are.
            what = "turn" if len(parts) == 4 else parts[-1]
            kinds[f"agentapi:{{p}}:{parts[2]}:<id>:{what}"] += 1
        else:
            kinds[":".join(parts[:3])] += 1
    return dict(kinds)
