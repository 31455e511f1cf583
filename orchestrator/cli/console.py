"""The consoles that commands print to."""

from __future__ import annotations

from rich.console import Console

console = Console()
errors = Console(stderr=True)


def counted(number: int, noun: str) -> str:
    """A number and its noun: ``1 step``, ``2 steps``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
