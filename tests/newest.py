"""``python -m tests.newest``: runs unit tests, conformance tests and the demo on the newest Python.

Development happens on the oldest supported Python. This module finds the newest one on the machine
that `requires-python` allows, and creates a separate environment for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

UV: Final = ROOT / ".tools/bin/uv"

FOLDER: Final = ROOT / ".venv-newest"
"""The environment; `make clean` removes it."""


SUPPORTED: Final = range(11, 15)
"""The minor versions of Python 3 in `requires-python`."""


def interpreters() -> list[str]:
    """Paths of possible interpreters: those on the PATH, and pyenv's."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True)
        folders += Path(root.stdout.strip(), "versions").glob("*/bin")
    return [
        str(folder / f"python3.{minor}")
        for minor in SUPPORTED
        for folder in folders
        if (folder / f"python3.{minor}").exists()
    ]


def version_of(path: str) -> tuple[int, ...] | None:
    """The version of an interpreter; None if it does not run."""
    asked = [path, "-c", "import sys; print(*sys.version_info[:3])"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    # A pyenv shim fails if its version is not selected.
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else None


def main() -> int:
    """Run everything; returns the exit code of the first failure."""
    found = [(version, path) for path in interpreters() if (version := version_of(path))]
    version, path = max(found)
    if version <= sys.version_info[:3]:
        print("this machine has no newer Python that is supported: nothing more to test")
        return 0
    print(f"Python {'.'.join(map(str, version))}, {path}", flush=True)
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(FOLDER)}
    python = str(FOLDER / "bin/python")
    for command in (
        [str(UV), "sync", "--quiet", "--frozen", "--python", path],
        [python, "-m", "pytest", "-n3", "--dist=loadfile", "tests/unit", "tests/conformance"],
        [python, "-m", "orchestrator.cli.main", "demo", "--conversations", "12"],
    ):
        print("$", " ".join(command), flush=True)
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if done.returncode != 0:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
