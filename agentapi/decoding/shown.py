"""Values of a caller's in errors about them."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 200
"""Characters; the beginning of a value says enough."""


def shown(value: object) -> str:
    """A value as an error shows it: whatever it is, short, and never an error of its own."""
    try:
        text = repr(value[: LONGEST + 1] if isinstance(value, str) else value)
    except BaseException:
        # Whoever wrote its __repr__ made a mistake, or it is an integer of thousands of digits.
        return f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
