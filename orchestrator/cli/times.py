"""Formats and parses times for people."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Final

from orchestrator.cli.failures import usage_error

_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def clock(seconds: float | None) -> str | None:
    """Format a time in this machine's time zone: ``03:26:14``, with the date unless it is today."""
    if seconds is None:
        return None
    then = datetime.fromtimestamp(seconds)
    today = then.date() == datetime.fromtimestamp(time.time()).date()
    return f"{then:%H:%M:%S}" if today else f"{then:%Y-%m-%d %H:%M:%S}"


def span(seconds: float) -> str:
    """Format a duration in its two largest units: ``0.4s``, ``12s``, ``3m05s``."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    for size, unit, smaller, letter in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}{seconds % size // smaller:02.0f}{letter}"
    return f"{seconds:.0f}s"


def moment(option: str, text: str | None) -> float | None:
    """Parse a point in time to seconds since 1970; None if it is not given.

    Args:
        option: The option, for errors.
        text: How long ago, such as ``90s``, ``30m``, ``2h``, ``7d`` or ``1w``; or a date or time in
            ISO 8601, in this machine's time zone if it has none; or seconds since 1970.

    Raises:
        CommandFailed: The text is none of these.
    """
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return time.time() - float(ago[1]) * _SECONDS[ago[2]]
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise usage_error(
            f"{option} is {text!r}: expected how long ago, such as 30m, 2h or 7d, or a time such "
            "as 2026-01-31T12:00"
        ) from None
