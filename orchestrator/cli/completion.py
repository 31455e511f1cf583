"""Completes arguments in shells. It runs at each Tab, so it imports little."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

STATUSES: Final = ("queued", "running", "parked", "completed", "failed", "cancelled")
"""The values of `TurnStatus`, copied because its import is slow."""


def turn_statuses(incomplete: str) -> list[str]:
    """The statuses of turns."""
    return [name for name in STATUSES if name.startswith(incomplete)]


def agent_names(incomplete: str) -> list[str]:
    """Names of agents that the modules of `AGENTAPI_AGENTS` define, read from their source.

    The modules are not imported, because that would be slow and could have side effects.
    """
    found = {name for module in _modules() for name in _names_in(module)}
    return sorted(name for name in found if name.startswith(incomplete))


def _modules() -> list[str]:
    value = os.environ.get("AGENTAPI_AGENTS")
    if value is None:
        value = _from_file(Path(".env"))
    return [name.strip() for name in (value or "").split(",") if name.strip()]


def _from_file(file: Path) -> str | None:
    if not file.is_file():
        return None
    from dotenv import dotenv_values

    return dotenv_values(file).get("AGENTAPI_AGENTS")


def _names_in(module: str) -> Iterator[str]:
    source = _source_of(module)
    if source is None:
        return
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_agent(node.func):
            yield from _name_of(node)


def _source_of(module: str) -> Path | None:
    """The file of a module, found without importing it or its packages."""
    path, origin = [str(Path.cwd()), *sys.path], None
    for part in module.split("."):
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            return None
        path, origin = list(spec.submodule_search_locations or ()), spec.origin
    return Path(origin) if origin else None


def _is_agent(function: ast.expr) -> bool:
    return (isinstance(function, ast.Name) and function.id == "Agent") or (
        isinstance(function, ast.Attribute) and function.attr == "Agent"
    )


def _name_of(call: ast.Call) -> Iterator[str]:
    values = [*call.args[:1], *(each.value for each in call.keywords if each.arg == "name")]
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value
