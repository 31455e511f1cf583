"""The files in deploy/, parsed, and the programs that check them."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
OVERLAYS: Final = ("trial", "production")

_FOLDER: Final = ".tools/deploy"


@cache
def tools() -> Path:
    """The folder of the programs: an environment of their own, as the lock file says."""
    own = ROOT / ".tools/bin/uv"
    uv = str(own) if own.exists() else shutil.which("uv")
    assert uv is not None, "uv is missing: run `make test`, which installs it"
    done = subprocess.run(
        [uv, "sync", "--quiet", "--frozen", "--only-group", "deploy"],
        cwd=ROOT,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": _FOLDER},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return ROOT / _FOLDER / "bin"


def check(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one of the programs."""
    return subprocess.run(
        [str(tools() / program), *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def compose() -> dict[str, Any]:
    """deploy/compose.yaml, as it is written."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def overlay(name: str, folder: Path) -> list[dict[str, Any]]:
    """What an overlay of deploy/kubernetes makes, by kustomize.

    Args:
        name: The overlay.
        folder: An empty folder for a copy, with the example's secrets.
    """
    shutil.copytree(DEPLOY / "kubernetes", folder, dirs_exist_ok=True)
    place = folder / "overlays" / name
    shutil.copy(place / "secrets.env.example", place / "secrets.env")
    done = check("kubectl", "kustomize", str(place))
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]
