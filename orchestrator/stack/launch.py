"""Become another program that dies with its parent: ``python launch.py PROGRAM ARGS...``.

A parent killed with SIGKILL cannot stop its children; on Linux the kernel does (prctl(2),
PR_SET_PDEATHSIG, kept over execve).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, then become the program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606


if __name__ == "__main__":
    main()
