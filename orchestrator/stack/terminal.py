"""Checks whether this process has a terminal that people can close."""

from __future__ import annotations

import os


def has_terminal() -> bool:
    """Whether this process has a controlling terminal. Linux removes it when it is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
