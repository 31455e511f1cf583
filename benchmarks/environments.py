"""The contenders' virtual environments: created by uv, pinned, and kept until `make clean`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
CACHE: Final = ROOT / ".benchmarks"


class CannotInstall(Exception):
    """An environment cannot be created here. The message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Packages and their Python version.

    Attributes:
        name: Name of its folder.
        requirements: Pinned requirements.
        python: A version or a constraint that uv understands; this interpreter's version when not
            given.
    """

    name: str
    requirements: tuple[str, ...]
    python: str | None = None

    def folder(self) -> Path:
        """Its folder. The name changes when its contents do."""
        what = "\n".join((*self.requirements, self.python or sys.version))
        return CACHE / f"{self.name}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"

    def interpreter(self) -> Path:
        """Its Python interpreter. The environment is created if it does not exist.

        Raises:
            CannotInstall: uv is missing or failed; the message has the end of its output.
        """
        folder = self.folder()
        ready = folder / ".ready"
        interpreter = folder / "bin" / "python"
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _uv("venv", "--quiet", "--python", self.python or sys.executable, str(folder))
            _uv("pip", "install", "--quiet", "--python", str(interpreter), *self.requirements)
            ready.touch()
        return interpreter


def _uv(*arguments: str) -> None:
    uv = shutil.which("uv", path=f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        raise CannotInstall("uv is not installed: run `make bench`, which brings it")
    try:
        subprocess.run(
            [uv, *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "PATH": _with_pyenv(os.environ["PATH"])},
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = str(error.stderr or error).strip().splitlines()
        raise CannotInstall(f"uv {arguments[0]} failed: {said[-1] if said else error}") from error


def _with_pyenv(path: str) -> str:
    """Add pyenv's versions to the PATH, because uv does not look for them."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = sorted(root.glob("versions/3.1[2-9]*/bin"))
    return os.pathsep.join([*map(str, folders), path])
