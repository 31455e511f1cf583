"""Prints results to standard output, and everything else to standard error."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import typer

if TYPE_CHECKING:
    from rich.console import Console

_WIDE: Final = 200


class _Lazy:
    """A console that is created when first used, because help and completion need none."""

    def __init__(self, *, stderr: bool) -> None:
        self._stderr = stderr

    @cached_property
    def real(self) -> Console:
        from rich.console import Console

        # For a file or a pipe, do not squeeze tables into the 80 columns that Rich assumes.
        wide = not (sys.stderr if self._stderr else sys.stdout).isatty()
        width = _WIDE if wide and "COLUMNS" not in os.environ else None
        return Console(stderr=self._stderr, width=width)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


console = cast("Console", _Lazy(stderr=False))
errors = cast("Console", _Lazy(stderr=True))


def real(console: Console) -> Console:
    """The console itself, for Rich's own code, which does more than call methods."""
    return console.real if isinstance(console, _Lazy) else console


_SHOWN: Final = frozenset("\n\t")


def print_json(value: Any) -> None:
    """Print one JSON value on one line of standard output, as UTF-8."""
    typer.echo(json.dumps(value, ensure_ascii=False).encode() + b"\n", nl=False)


def note(text: str) -> None:
    """Print a remark to standard error, which is not part of the result."""
    errors.print(printable(text), style="dim", markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """Escape control characters, so that text from models and users cannot control the terminal."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in _SHOWN else f"\\x{ord(each):02x}" for each in text
    )


def own_command() -> str:
    """How to call `agentapi` from this shell: by name if it is on the PATH, otherwise by the path
    of the running command."""
    own = Path(sys.executable).with_name("agentapi")
    if not own.exists():
        return f"{shlex.quote(sys.executable)} -m orchestrator.cli.main"
    found = shutil.which("agentapi")
    if found and Path(found).samefile(own):
        return "agentapi"
    here = Path.cwd()
    if not own.is_relative_to(here):
        return shlex.quote(str(own))
    # Without a slash, the shell would search the PATH.
    shown = str(own.relative_to(here))
    return shlex.quote(shown if "/" in shown else f"./{shown}")


class Printer:
    """Writes a text to standard output piece by piece."""

    def __init__(self) -> None:
        self._open = False

    def write(self, piece: str) -> None:
        """Write a piece immediately."""
        if not piece:
            return
        # A program that reads the output gets the exact text.
        sys.stdout.write(printable(piece) if sys.stdout.isatty() else piece)
        sys.stdout.flush()
        self._open = not piece.endswith("\n")

    def end_line(self) -> None:
        """End the current line, if one was begun."""
        if self._open:
            self.write("\n")
