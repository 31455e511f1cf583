"""Words for people, shared by commands and the demo."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun: ``1 step``, ``2 steps``.

    Args:
        number: How many there are.
        noun: What is counted.
        plural: The noun's plural, if it is not the noun with an s.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"
