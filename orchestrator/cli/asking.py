"""Reads lines from a person at a terminal, or from a program."""

from __future__ import annotations

import sys

import typer

from orchestrator.cli.failures import usage_error


def confirm(question: str) -> None:
    """Ask for confirmation of something that cannot be undone.

    Raises:
        CommandFailed: There is nobody to ask.
        Abort: The answer is no.
    """
    if not sys.stdin.isatty():
        raise usage_error("no terminal to ask for confirmation: add --yes")
    typer.confirm(question, abort=True, err=True)


class Lines:
    """Lines of standard input.

    Attributes:
        interactive: Whether a person types them; otherwise nothing is prompted.
        quiet: Whether nothing is printed for people.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        """Open standard input.

        Args:
            quiet: Whether never to prompt, for example because standard output goes to a program.
        """
        self.quiet = quiet
        self.interactive = sys.stdin.isatty() and not quiet

    def read(self, prompt: str, prefill: str = "") -> str | None:
        """The next line without the spaces around it; None at the end of the input.

        Args:
            prompt: Shown to a person.
            prefill: Text that the person can edit; ignored if the input is not a terminal.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        if not self.interactive:
            line = sys.stdin.readline()
            return line.strip() if line else None
        try:
            return _prompted(prompt, prefill).strip()
        except EOFError:
            print()
            return None


def _prompted(prompt: str, prefill: str) -> str:
    try:
        # Importing it gives input() a history and line editing.
        import readline
    except ImportError:
        return input(prompt)
    if prefill:
        readline.set_startup_hook(lambda: readline.insert_text(prefill))
    try:
        return input(prompt)
    finally:
        readline.set_startup_hook()
