"""Reads single keys at a terminal, without waiting for the end of a line."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Any, Self


class Keys:
    """Reads keys while it is open, and restores the terminal afterwards.

    If standard input is not a terminal, there are no keys.
    """

    def __init__(self) -> None:
        self._input = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before: list[Any] | None = None
        self._reader, self._writer = os.pipe()

    def __enter__(self) -> Self:
        if self._input is not None:
            self._before = termios.tcgetattr(self._input)
            tty.setcbreak(self._input)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._input is not None and self._before is not None:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def wake(self) -> None:
        """From any thread: end the wait for a key."""
        os.write(self._writer, b"!")

    def wait(self, timeout: float) -> str:
        """The typed keys; empty after a `wake` or a timeout.

        Args:
            timeout: Maximum seconds to wait.

        Raises:
            EOFError: The terminal was closed.
        """
        sources = [self._reader, *([self._input] if self._input is not None else [])]
        ready, _, _ = select.select(sources, [], [], timeout)
        if self._reader in ready:
            os.read(self._reader, 1024)
        if self._input is None or self._input not in ready:
            return ""
        try:
            data = os.read(self._input, 1024)
        except OSError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        return data.decode(errors="replace")
