"""Limits of length: a file that crosses them is split, never excused."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final, TypeAlias

import pytest

ROOT: Final = Path(__file__).parents[2]

FOLDERS: Final = ("agentapi", "workers", "orchestrator", "tests", "benchmarks", "examples")

FILE_LINES: Final = 500

FUNCTION_LINES: Final = 60
"""Without the docstring."""

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def length(function: Function) -> int:
    first = function.body[0]
    docstring = 0
    if ast.get_docstring(function) is not None:
        docstring = (first.end_lineno or first.lineno) - first.lineno + 1
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def test_no_file_is_too_long() -> None:
    lines = {path: path.read_text().count("\n") for path in sources()}
    assert {str(path): n for path, n in lines.items() if n > FILE_LINES} == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_is_too_long(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length(node)} lines"
        for path in sources()
        if path.is_relative_to(ROOT / folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, Function) and length(node) > FUNCTION_LINES
    ]
    assert found == []
