"""Applies a recipe's blocks to a copy of the repository.

A block's title is a file, and where in it the block belongs: ``path`` (a new file), ``path, NAME``
(an item of the tuple NAME), ``path, class Name``, ``path, at the end``, or ``path, after the last
register``.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.documents.blocks import ROOT, Block

_COPIED: Final = ("agentapi", "workers", "orchestrator", "tests", "tools", "docs", "deploy")


def copy_of_the_repository(folder: Path) -> Path:
    """A copy to change, without what is not tracked."""
    skipped = shutil.ignore_patterns("__pycache__", "node_modules", ".*")
    for name in _COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for file in ROOT.glob("*.*"):
        if file.is_file():
            shutil.copy(file, folder)
    shutil.copy(ROOT / "Makefile", folder)
    return folder


def apply(block: Block, root: Path) -> None:
    """Put a block where its title says."""
    path, _, place = block.title.partition(", ")
    file = root / path
    if not place:
        assert not file.exists(), f"{block}: {path} is there already"
        file.write_text(block.code)
        return
    text = file.read_text()
    if place.startswith("class "):
        text = _into_class(text, place.removeprefix("class "), block.code)
    elif place == "at the end":
        text = f"{text}\n\n{block.code}"
    elif place == "after the last register":
        text = _registered(text, block.code)
    else:
        text = _into_tuple(text, place, block.code)
    file.write_text(text)


def run(root: Path, *command: str) -> None:
    """Run a Python module in the copy, whose packages win over the installed ones."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _into_class(text: str, name: str, code: str) -> str:
    """At the end of a class; a field comes behind its last field."""
    [found] = [
        node
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name == name
    ]
    is_method = code.startswith(("def ", "async def ", "@"))
    members: Sequence[ast.stmt] = [
        node for node in found.body if is_method or isinstance(node, ast.AnnAssign)
    ]
    line = members[-1].end_lineno or 0
    gap = "\n" if is_method else ""
    return _insert(text, line, gap + textwrap.indent(code, "    "))


def _into_tuple(text: str, name: str, item: str) -> str:
    """As the last item of a module's tuple."""
    [found] = [
        node.value
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and name in {target.id for target in _names(node)}
    ]
    assert isinstance(found, ast.Tuple), f"{name} is not a tuple"
    last = found.elts[-1]
    lines = text.splitlines(keepends=True)
    at = (last.end_lineno or 0) - 1
    line = lines[at]
    end = last.end_col_offset
    lines[at] = f"{line[:end]}, {item.strip()}{line[end:]}"
    return "".join(lines)


def _names(node: ast.Assign | ast.AnnAssign) -> list[ast.Name]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target for target in targets if isinstance(target, ast.Name)]


def _registered(text: str, code: str) -> str:
    """Behind the last module that registers its commands, and among the imports."""
    module = code.partition(".")[0]
    imports = "from orchestrator.cli import (\n"
    assert imports in text
    text = text.replace(imports, f"{imports}    {module},\n", 1)
    last = [number for number, line in enumerate(text.splitlines(), 1) if ".register(" in line][-1]
    return _insert(text, last, code)


def _insert(text: str, line: int, code: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:line], code, *lines[line:]])
