"""A full disk: a server that can no longer write its file."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import redis

from orchestrator.stack import Child
from tests.faults import until


@contextmanager
def full_disk(server: Child, url: str) -> Iterator[None]:
    """The server's append-only file cannot grow; it refuses writes (MISCONF) until it can again.

    The kernel refuses each write beyond the file's current end, as on a full disk.
    """
    with redis.Redis.from_url(url) as client:
        # With `always`, a server that cannot write exits, which is a different fault.
        fsync = client.config_get("appendfsync")["appendfsync"]
        client.config_set("appendfsync", "everysec")
        folder = Path(client.config_get("dir")["dir"])
        process = psutil.Process(server.pid)
        # The largest file is the growing one, so the disk is full at its end.
        size = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        _, hard = process.rlimit(resource.RLIMIT_FSIZE)
        process.rlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            process.rlimit(resource.RLIMIT_FSIZE, (hard, hard))
            until(lambda: writes(client), 30, "writing again")
            client.config_set("appendfsync", fsync)


def writes(client: redis.Redis) -> bool:
    """Whether the server's last write to its file succeeded."""
    return bool(client.info("persistence")["aof_last_write_status"] == "ok")
