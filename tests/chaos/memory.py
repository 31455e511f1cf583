"""A limit of memory for a worker and all beside it, kept as a container's is.

Where this user may make memory control groups the kernel keeps it and kills by itself. Elsewhere
a thread does what the kernel would: it looks often and kills the largest process.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import psutil

from orchestrator.stack import Child
from tests.chaos.fleet import beside

_HIERARCHIES: Final[Mapping[str, tuple[Path, str]]] = {
    "memory": (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    "": (Path("/sys/fs/cgroup"), "memory.max"),
}
"""Where the first and the second version keep groups, and what a limit is called there."""


class MemoryLimits:
    """Limits of any number of workers.

    Attributes:
        kills: Processes that were killed for want of memory.
        by_kernel: Whether the kernel kills.
    """

    def __init__(self, limit: int) -> None:
        """Args:
        limit: Bytes for one worker with all beside it.
        """
        self._limit = limit
        self._groups: list[Path] = []
        self._watched: list[Child] = []
        self._kills = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        spare = make_group(limit)
        self.by_kernel = spare is not None
        if spare is not None:
            spare.rmdir()

    @property
    def kills(self) -> int:
        """Processes that were killed so far."""
        return self._kills + sum(kills_in(group) for group in self._groups)

    def keep(self, worker: Child) -> None:
        """Limit a worker that has just been started, before it has started anything."""
        group = make_group(self._limit) if self.by_kernel else None
        if group is not None:
            self._groups.append(group)
            (group / "cgroup.procs").write_text(str(worker.pid))
            return
        self._watched.append(worker)
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Lift the limits. All limited processes must have ended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._kills = self.kills
        groups, self._groups = self._groups, []
        for group in groups:
            # What was killed a moment ago may not have been reaped yet.
            for _ in range(100):
                try:
                    group.rmdir()
                except OSError:
                    time.sleep(0.02)
                else:
                    break

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            for worker in self._watched:
                if worker.exit_code is None:
                    self._kills += kill_largest(worker, self._limit)


def make_group(limit: int) -> Path | None:
    """A memory control group below this process's own, or None where there can be none."""
    own = Path("/proc/self/cgroup")
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers not in _HIERARCHIES:
            continue
        root, setting = _HIERARCHIES[controllers]
        group = root / path.strip("/") / f"agentapi-chaos-{uuid.uuid4().hex[:8]}"
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / setting).exists():
                (group / setting).write_text(str(limit))
                return group
            group.rmdir()
    return None


def kills_in(group: Path) -> int:
    """How many processes the kernel has killed in a control group."""
    for name in ("memory.oom_control", "memory.events"):
        with contextlib.suppress(OSError):
            words = (group / name).read_text().split()
            return int(words[words.index("oom_kill") + 1])
    return 0


def kill_largest(worker: Child, limit: int) -> int:
    """Kill the largest process of those beside a worker if they have too much together."""
    sizes = dict(sizes_of([worker.pid, *(process.pid for process in beside(worker))]))
    if sum(sizes.values()) <= limit:
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(max(sizes, key=lambda pid: sizes[pid]), 9)
        return 1
    return 0


def sizes_of(pids: Iterable[int]) -> Iterable[tuple[int, int]]:
    """Resident bytes of those processes that are there."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield pid, psutil.Process(pid).memory_info().rss
