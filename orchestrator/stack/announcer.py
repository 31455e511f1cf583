"""Announces whether workers take turns: by a file for probes, and by systemd's protocol."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from agentapi.errors import ConfigurationError
from agentapi.faults import named
from agentapi.logs import line

log = logging.getLogger("agentapi.fleet")

BEAT: Final = 1.0
"""Seconds between two checks. A probe may treat a much older file as a sign of a hung fleet."""

Ready: TypeAlias = Callable[[], tuple[int, int, bool]]
"""Returns how many processes take turns, out of how many, and whether they are being replaced."""


class Announcer:
    """Touches a file while at least one process takes turns, and notifies systemd."""

    def __init__(self, file: Path | None, env: Mapping[str, str]) -> None:
        """Check that the file can be written, and remove it.

        Args:
            file: The file; None for no file.
            env: Environment variables. In a unit of ``Type=notify`` they include systemd's
                `NOTIFY_SOCKET`.

        Raises:
            ConfigurationError: The file cannot be written.
        """
        self._file = file
        self._socket = env.get("NOTIFY_SOCKET", "")
        self._said = ""
        self._started = False
        self._failed = False
        if file is not None:
            try:
                file.touch()
                file.unlink()
            except OSError as error:
                raise ConfigurationError(
                    f"--ready-file: {file} cannot be written ({error.strerror}); name a file in a "
                    "folder that the worker may write to, such as /tmp/ready"
                ) from error

    async def run(self, ready: Ready) -> None:
        """Announce until cancelled, then remove the file."""
        try:
            while True:
                try:
                    self._announce(*ready())
                    self._failed = False
                except Exception as error:
                    # The workers continue without it. Log it only once, or it would fill the log.
                    if not self._failed:
                        why = error.strerror if isinstance(error, OSError) else named(error)
                        log.error(line("fleet.not_announced", error=why))
                    self._failed = True
                await asyncio.sleep(BEAT)
        finally:
            if self._file is not None:
                self._file.unlink(missing_ok=True)

    def _announce(self, taking: int, places: int, rolling: bool) -> None:
        if self._file is not None:
            if taking:
                self._file.touch()
            else:
                self._file.unlink(missing_ok=True)
        status = f"STATUS={taking} of {places} processes take turns"
        # The unit has started once all processes have. Later restarts of one do not matter.
        self._started = self._started or taking == places
        state = "RELOADING=1" if rolling else "READY=1"
        said = f"{state}\n{status}" if self._started else status
        if said != self._said:
            stamp = f"\nMONOTONIC_USEC={time.monotonic_ns() // 1000}" if rolling else ""
            self._notify(said + stamp)
            self._said = said

    def _notify(self, message: str) -> None:
        """See sd_notify(3). Does nothing outside such a unit."""
        if not self._socket:
            return
        # An address that begins with @ is in Linux's abstract namespace.
        address = f"\0{self._socket[1:]}" if self._socket.startswith("@") else self._socket
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.send(message.encode())


def without_notify(env: Mapping[str, str]) -> dict[str, str]:
    """Environment for the worker processes, which must not notify systemd for the unit."""
    return {name: value for name, value in env.items() if name != "NOTIFY_SOCKET"}
