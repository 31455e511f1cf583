"""A memory limit for a worker with all its processes, like that of a container.

If this user can create memory control groups, the kernel enforces the limit. Otherwise a thread
does the same: it checks often and kills the largest process.
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
"""Folders of the groups in cgroup versions 1 and 2, and the name of the limit there."""


class MemoryLimits:
    """Memory limits for any number of workers.

    Attributes:
        kills: Number of processes killed for lack of memory.
        by_kernel: Whether the kernel enforces the limits.
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
        """Number of processes killed so far."""
        return self._kills + sum(kills_in(group) for group in self._groups)

    def keep(self, worker: Child) -> None:
        """Limit a newly started worker, before it starts other processes."""
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
        """Remove the limits. All limited processes must have ended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._kills = self.kills
        groups, self._groups = self._groups, []
        for group in groups:
            # A process that was just killed may not have been reaped yet.
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
    """Create a memory control group below this process's own; None if that is not possible."""
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
    """Kill the largest of a worker's processes if together they use too much memory."""
    sizes = dict(sizes_of([worker.pid, *(process.pid for process in beside(worker))]))
    if sum(sizes.values()) <= limit:
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(max(sizes, key=lambda pid: sizes[pid]), 9)
        return 1
    return 0


def sizes_of(pids: Iterable[int]) -> Iterable[tuple[int, int]]:
    """Resident bytes of the processes that exist."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            yield pid, psutil.Process(pid).memory_info().rss
