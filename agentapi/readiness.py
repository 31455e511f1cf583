"""What a worker process and the command that started it tell each other.

A command that runs several workers gives each of them a pipe. The worker writes to it when it takes
turns, so that a rolling restart stops the process that it replaces only then.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

READY_FD: Final = "_AGENTAPI_READY_FD"
"""The variable with the pipe's descriptor."""

REPLACES: Final = "_AGENTAPI_REPLACES"
"""The variable of a process that replaces another one, which still runs."""


def report_ready() -> None:
    """Say that this process takes turns. Does nothing where nobody waits for it."""
    descriptor = os.environ.pop(READY_FD, None)
    if descriptor is None:
        return
    # The command may have ended meanwhile.
    with contextlib.suppress(OSError):
        os.write(int(descriptor), b"ready\n")
        os.close(int(descriptor))


def replaces_another() -> bool:
    """Whether this process replaces another one of this machine, which still runs."""
    return REPLACES in os.environ
