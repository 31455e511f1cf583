"""Child processes, each with a log file, stopped by process id."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from agentapi.errors import ConfigurationError

LAUNCH = Path(__file__).with_name("launch.py")


_FIRST_PORT: Final = 20_000
_CONNECTIONS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_OF_CONNECTIONS: Final = 32_768
"""Start of Linux's default range of ephemeral ports; other systems start higher."""


def free_port(count: int = 1) -> int:
    """Find a port on the loopback interface that is free now.

    It is below the ports that the system uses for outgoing connections. Otherwise a connection
    could take it before its server starts, or while the server restarts.

    Args:
        count: How many ports in a row must be free, at least 1; the result is the first.
    """
    # Not the shared generator: tests seed it, so all processes would choose the same ports.
    choose = random.SystemRandom().randrange
    while True:
        first = choose(_FIRST_PORT, _first_of_connections() - count + 1)
        if all(_is_free(port) for port in range(first, first + count)):
            return first


def _first_of_connections() -> int:
    try:
        first = int(_CONNECTIONS.read_text().split()[0])
    except OSError:
        return _FIRST_OF_CONNECTIONS
    return first if first > _FIRST_PORT + 1_000 else _FIRST_OF_CONNECTIONS


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Child:
    """A running child process. It has its own session, so that Ctrl-C reaches only the parent.

    Attributes:
        name: Shown to people.
        log: The file with everything that it prints.
        started: When it was started, by the monotonic clock.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start the process.

        Args:
            name: Shown to people.
            command: Program and arguments.
            log: File for its output; it is overwritten.
            env: Variables in addition to this process's own.
            cwd: Working directory; this process's own when not given.
        """
        self.name = name
        self.log = log
        self.started = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603
                # The launcher ends the child with this process, even if this process is killed.
                [sys.executable, str(LAUNCH), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._process.poll()

    @property
    def ending(self) -> str:
        """How it ended, such as "was killed by SIGKILL"; empty while it runs."""
        code = self.exit_code
        if code is None:
            return ""
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was killed by {signal.Signals(-code).name}"

    def check(self) -> None:
        """Check that it runs.

        Raises:
            ConfigurationError: It has ended. The message shows the end of its log.
        """
        if self.exit_code is not None:
            raise ConfigurationError(
                f"{self.name} {self.ending}; the end of {self.log}:\n{self.tail()}"
            )

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def stop(self, timeout: float = 30.0) -> None:
        """Stop it with SIGTERM; kill it after `timeout` seconds."""
        self.signal(signal.SIGTERM)
        self.finish(timeout)

    def finish(self, timeout: float) -> None:
        """Wait until it ends; kill it after `timeout` seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()


def stop_all(children: Sequence[Child], timeout: float = 30.0) -> None:
    """Stop several children together: all get SIGTERM before the first is waited for."""
    for child in children:
        child.signal(signal.SIGTERM)
    # Send each only one signal: a second would make a worker hand its turns back immediately.
    for child in children:
        child.finish(timeout)
