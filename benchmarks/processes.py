"""Measures processor time, memory and threads of processes and their children."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import redis


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Resources that processes use.

    Attributes:
        cpu: Seconds of processor time since they started.
        memory: Resident memory in MiB; shared pages count for each process.
        threads: Number of threads of all processes.
    """

    cpu: float
    memory: float
    threads: int


def usage(pids: Iterable[int], *, children: bool = True) -> Usage:
    """Resources of the processes, including their running children unless excluded."""
    cpu, memory, threads = 0.0, 0.0, 0
    for process in _family(pids, children):
        with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
            times = process.cpu_times()
            cpu += times.user + times.system
            memory += process.memory_info().rss / 2**20
            threads += process.num_threads()
    return Usage(cpu=cpu, memory=memory, threads=threads)


def server_cpu(client: redis.Redis) -> float:
    """Seconds of processor time of a client's Redis or Valkey server since its start."""
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def _family(pids: Iterable[int], children: bool) -> Iterator[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            yield process
            if children:
                yield from process.children(recursive=True)
