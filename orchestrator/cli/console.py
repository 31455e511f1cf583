"""The consoles that commands print to."""

from __future__ import annotations

from rich.console import Console

console = Console()
errors = Console(stderr=True)
