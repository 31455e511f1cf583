"""Variables from the environment and from the file `.env` in the working directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from agentapi.errors import ConfigurationError

FILE: Final = ".env"
"""Name of the file. The environment takes precedence over its variables."""


def variable(name: str) -> str | None:
    """The value of a variable; None if it is not set, or empty.

    Args:
        name: Its name, exactly as it is written.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    if name in os.environ:
        # An empty variable hides the one in the file, so that a shell can turn it off.
        return os.environ[name] or None
    return _file().get(name) or None


def names() -> set[str]:
    """The names of all variables.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    return {*os.environ, *_file()}


def _file() -> Mapping[str, str | None]:
    path = Path.cwd() / FILE
    try:
        stat = path.stat()
    except OSError:
        return {}
    return _read(path, stat.st_mtime_ns, stat.st_size)


@cache
def _read(path: Path, changed: int, size: int) -> Mapping[str, str | None]:
    # Imported only if there is a file.
    from dotenv import dotenv_values

    if not path.is_file():
        return {}
    try:
        return dotenv_values(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(error) from error


def unreadable(error: Exception) -> ConfigurationError:
    """The error for a file that cannot be read."""
    return ConfigurationError(
        f"{Path.cwd() / FILE} cannot be read ({type(error).__name__}): expected lines NAME=value "
        "in UTF-8"
    )
