"""The templates' filters: how values are shown on pages."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

SHORT: Final = 2_000
"""Maximum characters of a text on a page, unless the full text is requested."""

_INVISIBLE: Final = re.compile(
    # Control characters except tabs and newlines, and characters that reverse or hide text. Marks
    # that right-to-left languages and emojis need are allowed.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)


def visible(text: object) -> str:
    """Text with its control characters replaced by visible symbols.

    Readers cannot be misled: no character moves the surrounding text or hides a part of it.
    """
    return _INVISIBLE.sub(_sign, str(text))


def _sign(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"[U+{code:04X}]"


def short(text: object, most: int = SHORT) -> str:
    """The beginning of a text, visible; see `visible`."""
    whole = str(text)
    return visible(whole) if len(whole) <= most else f"{visible(whole[:most])}…"


def is_long(text: object, most: int = SHORT) -> bool:
    """Whether `short` leaves out a part of a text."""
    return len(str(text)) > most


def utc(seconds: float | None) -> str:
    """A time in seconds since 1970, in UTC, to the second."""
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def iso(seconds: float | None) -> str:
    """The same for the attribute `datetime`."""
    return utc(seconds).replace(" UTC", "Z").replace(" ", "T")


def duration(seconds: float | None) -> str:
    """A time span: ``350 ms``, ``4.2 s``, ``3 min 20 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    for unit, size, below, part in (
        *(("min", 60, "s", 1), ("h", 3600, "min", 60), ("d", 86400, "h", 3600)),
    ):
        if whole < size * (60 if unit == "min" else 24 if unit == "h" else 10**9):
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def ago(seconds: float | None) -> str:
    """The time since a moment; "" for None."""
    if seconds is None:
        return ""
    past = time.time() - seconds
    # The clocks of this machine and of Redis differ a little.
    if past < 1:
        return "now"
    return f"{past:.0f} s ago" if past < 59.5 else f"{duration(past)} ago"


def number(value: float | None) -> str:
    """A number with separators between thousands."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def rate(value: float) -> str:
    """A rate, to three digits."""
    return number(round(value)) if value >= 100 else f"{value:.3g}"


def cost(value: float | None) -> str:
    """A cost, in the unit of the setting `prices`."""
    if not value:
        return "0"
    return f"{value:,.2f}" if value >= 1 else f"{value:.4g}"


def pretty(value: Any) -> str:
    """JSON, or a text that may be JSON, on several lines."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return str(value)
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "visible": visible,
    "short": short,
    "is_long": is_long,
    "utc": utc,
    "iso": iso,
    "duration": duration,
    "ago": ago,
    "number": number,
    "rate": rate,
    "cost": cost,
    "pretty": pretty,
}
