"""How errors quote a caller's values."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 200
"""Maximum characters of a value in an error message."""


def shown(value: object) -> str:
    """Format any value for an error: short, and without ever raising."""
    try:
        text = repr(value[: LONGEST + 1] if isinstance(value, str) else value)
    except BaseException:
        # Its __repr__ raises, or it is an integer of thousands of digits.
        return f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
