"""The `agentapi` command in a pseudo-terminal, as a person uses it."""

from __future__ import annotations

import codecs
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

CTRL_C = "\x03"
CTRL_D = "\x04"

_COLOURS = re.compile("\x1b\\[[0-9;]*m")

COMMAND = (sys.executable, "-m", "orchestrator.cli.main")


def _take(terminal: int) -> None:
    """In the new process: make this its controlling terminal, so that Ctrl-C is a signal."""
    os.login_tty(terminal)
    # Shells start background jobs with the signal ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command that runs in a terminal of its own.

    Attributes:
        shown: All that it has printed, without colours.
    """

    def __init__(
        self,
        *arguments: str,
        redis_url: str,
        cwd: Path | None = None,
        command: Sequence[str] = COMMAND,
        columns: int = 200,
        lines: int = 50,
        kind: str = "dumb",
    ) -> None:
        env = {"AGENTAPI_REDIS_URL": redis_url, "TERM": kind}
        env |= {"COLUMNS": str(columns), "LINES": str(lines)}
        self.shown = ""
        self._seen = 0
        # A read may end in the middle of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._terminal, inside = os.openpty()
        self._process = subprocess.Popen(
            [*command, *arguments],
            # A dumb terminal has no colours and cursor movements.
            env={**os.environ, **env},
            preexec_fn=lambda: _take(inside),
            cwd=cwd,
        )
        os.close(inside)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def type(self, text: str) -> None:
        """Type a line."""
        self.press(f"{text}\n")

    def press(self, keys: str) -> None:
        """Type without a line's end."""
        os.write(self._terminal, keys.encode())

    def interrupt(self, pattern: str) -> None:
        """Press Ctrl-C at a prompt, and wait for what it prints. Python's `input` may notice a
        signal between its prompt and its read only at the next key, so it is pressed again."""
        self.press(CTRL_C)
        try:
            self.wait_for(pattern, timeout=20.0)
        except AssertionError:
            self.press(CTRL_C)
            self.wait_for(pattern)

    def wait_for(self, pattern: str, timeout: float = 150.0) -> re.Match[str]:
        """Wait until something is printed, behind what was waited for before."""
        deadline = time.monotonic() + timeout
        while (found := re.compile(pattern).search(self.shown, self._seen)) is None:
            assert self._read(deadline - time.monotonic()), (
                f"{pattern!r} is not in {self.shown[self._seen :]!r}"
            )
        self._seen = found.end()
        return found

    def shows(self, text: str, timeout: float = 2.0) -> bool:
        """Whether a text is printed within some seconds."""
        deadline = time.monotonic() + timeout
        while text not in self.shown:
            if not self._read(deadline - time.monotonic()):
                return False
        return True

    def wait(self, timeout: float = 150.0) -> int:
        """Wait for the end; returns the exit code."""
        deadline = time.monotonic() + timeout
        while self._read(deadline - time.monotonic()):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, timeout: float) -> bool:
        """Read what is printed next; false at the end, or when nothing comes in time."""
        ready, _, _ = select.select([self._terminal], [], [], max(0.0, timeout))
        if not ready:
            return False
        try:
            data = os.read(self._terminal, 65_536)
        except OSError:
            # Linux's answer when the last process has closed the terminal.
            return False
        shown = (self.shown + self._decoder.decode(data)).replace("\r\n", "\n")
        self.shown = _COLOURS.sub("", shown)
        return bool(data)
