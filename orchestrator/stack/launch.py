"""Run a program that ends when its parent dies: ``python launch.py PARENT PROGRAM ARGS...``.

A parent that is killed with SIGKILL cannot stop its children. On Linux the kernel does it for
the parent (prctl(2), PR_SET_PDEATHSIG, which survives execve).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for the signal, then replace this process with the program."""
    if sys.platform == "linux":
        # SIGTERM, so that workers still hand their turns back.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # If the parent died before the call above, the kernel sends no signal.
    if os.getppid() != int(sys.argv[1]):
        sys.exit(f"{sys.argv[2]} was not started: its parent process has ended")
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    main()
