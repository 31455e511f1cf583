"""An installation of another release: its wheel, with what its own lock file says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from orchestrator.stack.processes import Child

ROOT: Final = Path(__file__).parents[2]

PREVIOUS: Final = Path(__file__).with_name("previous").read_text().strip()
"""The commit of the release before this one."""

STORED: Final = Path(__file__).with_name("previous.tar.xz")
r"""Its sources, since a clone may have no history. To name another commit, write both files::

    git rev-parse COMMIT > tests/upgrade/previous
    git archive COMMIT agentapi workers orchestrator pyproject.toml uv.lock README.md LICENSE \
        | xz -9 > tests/upgrade/previous.tar.xz
"""

PARTS: Final = ("agentapi", "workers", "orchestrator")
FILES: Final = ("pyproject.toml", "uv.lock", "README.md", "LICENSE")
"""What a wheel is built of."""


def uv(*arguments: str, folder: Path, **variables: str) -> None:
    """Run uv: that of the Makefile, or one on the path."""
    own = ROOT / ".tools/bin/uv"
    command = str(own) if own.exists() else shutil.which("uv")
    assert command is not None, "uv is missing: run `make test`, which installs it"
    done = subprocess.run(
        [command, *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


class Release:
    """One release, and how its programs are started.

    Attributes:
        name: For logs.
        folder: Where its processes run, and where the agents are.
    """

    def __init__(self, name: str, folder: Path, bin_folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._bin = bin_folder

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Variables of its processes: without what points to this checkout."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("PYTHON", "VIRTUAL"))}
        return {**kept, **variables}

    def start(self, what: str, command: Sequence[str], variables: Mapping[str, str]) -> Child:
        """Start one of its programs.

        Args:
            what: For the log's name.
            command: The program, one of its own, and arguments.
            variables: Further variables.
        """
        clean = [f"--unset={name}" for name in os.environ if name.startswith(("PYTHON", "VIRTUAL"))]
        return Child(
            f"{what}-{self.name}",
            ["env", *clean, str(self._bin / command[0]), *command[1:]],
            log=self.folder / f"{what}-{self.name}.log",
            env=variables,
            cwd=self.folder,
        )

    def run(
        self, command: Sequence[str], variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs to its end."""
        return subprocess.run(
            [str(self._bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=self.environment(variables),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )


def installed(name: str, sources: Path | None, folder: Path) -> Release:
    """Build a release's wheel, and install it with its locked dependencies.

    Args:
        name: For logs.
        sources: An archive of them; this checkout's own files when not given.
        folder: An empty folder.
    """
    source = folder / "source"
    source.mkdir()
    if sources is None:
        caches = shutil.ignore_patterns("__pycache__")
        for part in PARTS:
            shutil.copytree(ROOT / part, source / part, ignore=caches)
        for file in FILES:
            shutil.copy(ROOT / file, source / file)
    else:
        with tarfile.open(sources) as files:
            files.extractall(source, filter="data")
    sync = ("sync", "--quiet", "--frozen", "--no-default-groups", "--no-editable")
    uv(
        *(*sync, "--extra", "gateway", "--python", sys.executable),
        folder=source,
        UV_PROJECT_ENVIRONMENT=str(folder / "venv"),
    )
    return Release(name, folder, folder / "venv" / "bin")
