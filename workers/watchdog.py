"""A small process beside each worker that frees the worker's turns if it is killed.

A lease ends by itself when its worker has been silent for `lease_ttl`. But a process that was
killed (SIGKILL, out of memory, a crash in native code) has certainly stopped, and the kernel
says so at once: it closes the pipe that the watchdog reads. The watchdog then ends the dead
worker's leases, and the next sweep hands its turns to another one. If it dies together with its
worker, as when the machine does, the lease's expiry is what is left.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys

from agentapi.errors import AgentAPIError
from agentapi.settings import Settings
from agentapi.stores import RedisTurnStore
from workers.logs import configure_logging, line
from workers.patience import Outage, ride_out

log = logging.getLogger("agentapi.watchdog")

_GOODBYE = b"goodbye\n"


class Watchdog:
    """The worker's side: starts the process and tells it of an orderly end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, process: str, candidate: str) -> None:
        """Start watching this process.

        Args:
            process: What this process's claim tokens begin with.
            candidate: Its name in the election of the sweeper.
        """
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "workers.watchdog", process, candidate],
            stdin=subprocess.PIPE,
            # Signals to the worker's process group are not for it: it must outlive the worker.
            start_new_session=True,
        )
        # By the pipe and not by the command line, which everybody on the machine can read.
        self._write(self._settings.model_dump_json().encode() + b"\n")

    def stop(self) -> None:
        """The worker ends in order and has handed back what it had."""
        if self._process is None:
            return
        self._write(_GOODBYE)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)

    def _write(self, data: bytes) -> None:
        if self._process is None or self._process.stdin is None:
            return
        # A watchdog that died is missed only if the worker is killed, and then the lease ends.
        with contextlib.suppress(OSError):
            self._process.stdin.write(data)
            self._process.stdin.flush()


def main() -> None:
    """The watchdog's side: wait for the pipe's end, then free what the worker had."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    process, candidate = sys.argv[1:3]
    # Every field comes by the pipe and wins over this process's environment.
    settings = Settings.model_validate_json(sys.stdin.buffer.readline())
    if sys.stdin.buffer.read() != b"":
        return
    configure_logging(settings.log_level)
    store = RedisTurnStore(settings)

    def free() -> int:
        store.resign(candidate)
        return store.orphan(process)

    try:
        # After a lease's time there is nothing left to end early.
        freed = ride_out(free, outage=Outage(), patience=settings.lease_ttl)
        log.warning(line("worker.died", worker=candidate, freed=freed))
    except AgentAPIError as error:
        log.warning(line("watchdog.failed", worker=candidate, error=error))


if __name__ == "__main__":
    main()
