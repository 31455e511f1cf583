"""Signals between a worker process and the command that started it.

A command that runs several workers gives each of them a pipe. The worker writes to it when it takes
turns. Only then a rolling restart stops the process that it replaces.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

READY_FD: Final = "_AGENTAPI_READY_FD"
"""The variable that holds the pipe's file descriptor."""

REPLACES: Final = "_AGENTAPI_REPLACES"
"""The variable that is set in a process that replaces another one, which is still running."""


def report_ready() -> None:
    """Report that this process takes turns. Does nothing if no command waits for it."""
    descriptor = os.environ.pop(READY_FD, None)
    if descriptor is None:
        return
    # The command may have ended in the meantime.
    with contextlib.suppress(OSError):
        os.write(int(descriptor), b"ready\n")
        os.close(int(descriptor))


def replaces_another() -> bool:
    """Whether this process replaces another one on this machine that is still running."""
    return REPLACES in os.environ
