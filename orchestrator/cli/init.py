"""`init`: write a small project to start from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import typer

from orchestrator.cli.console import console, print_json
from orchestrator.cli.options import RUN, Json

FILES: Final = {
    "agents.py": "agents.py.txt",
    "producer.py": "producer.py.txt",
    "test_agents.py": "test_agents.py.txt",
    ".env": "env.txt",
    "README.md": "README.md.txt",
}
"""The files to write, and the templates next to this module that they are copied from."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=RUN)(init)


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to write; created if missing.")
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Write a small project: an agent with a tool, a program that streams, a test, a README.

    Nothing is overwritten.
    """
    write_project(folder)
    if as_json:
        print_json({"folder": str(folder), "files": list(FILES)})
        return
    console.print(
        f"wrote {', '.join(FILES)} to {folder}; see README.md there",
        highlight=False,
        soft_wrap=True,
    )


def write_project(folder: Path) -> None:
    """Write the project's files.

    Raises:
        ConfigurationError: One of them exists already, or the folder cannot be written to.
    """
    from agentapi.errors import ConfigurationError

    if taken := [name for name in FILES if (folder / name).exists()]:
        raise ConfigurationError(
            f"{folder} already contains {', '.join(taken)}: name another folder; nothing was "
            "written"
        )
    templates = files("orchestrator.cli") / "project"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, template in FILES.items():
            text = (templates / template).read_text(encoding="utf-8")
            # Mode x, so that a file created in the meantime is not overwritten either.
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error}") from error
