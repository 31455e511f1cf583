"""Environments of the clients: one each, pinned, kept between runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.clients.roster import HERE, Client

ROOT: Final = HERE.parents[1]

FOLDER: Final = ROOT / ".clients"
"""Where they are; `make clean` removes it."""

BIN: Final = Path(sys.executable).parent


def prepare(client: Client) -> None:
    """Make a client's environment, unless it is there as its lock file says.

    Raises:
        RuntimeError: It cannot be made. The message has the end of the installer's output.
    """
    lock = HERE / f"npm/{client.name}/package-lock.json" if client.javascript else _lock(client)
    folder = _folder(client)
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    done = folder / ".lock-sha256"
    if done.exists() and done.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if client.javascript:
        shutil.copytree(lock.parent, folder)
        _run([str(BIN / "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
    else:
        uv = str(ROOT / ".tools/bin/uv")
        _run([uv, "venv", "--python", sys.executable, str(folder)], ROOT)
        _run([uv, "pip", "sync", "--python", str(folder / "bin/python"), str(lock)], ROOT)
    done.write_text(wanted)


def command(client: Client) -> list[str]:
    """What runs a client's cases; names of cases may follow."""
    cases = HERE / "cases" / client.cases
    if not client.javascript:
        return [str(_folder(client) / "bin/python"), str(cases)]
    # Node looks for packages beside the file.
    for name in (client.cases, "kit.mjs"):
        shutil.copy(cases.with_name(name), _folder(client))
    return [str(BIN / "node"), str(_folder(client) / client.cases)]


def version(client: Client) -> str:
    """The pinned version of a client."""
    if client.javascript:
        pinned = (HERE / f"npm/{client.name}/package.json").read_text()
        return pinned.split(f'"{client.package}": "')[1].split('"')[0]
    for line in _lock(client).read_text().splitlines():
        if line.startswith(f"{client.package}=="):
            return line.split("==")[1].split()[0]
    raise RuntimeError(f"{_lock(client)} does not name {client.package}")


def variables(extra: dict[str, str]) -> dict[str, str]:
    """The environment of the cases: telemetry off, and Node found."""
    off = {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "DO_NOT_TRACK": "1"}
    return {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **off, **extra}


def _folder(client: Client) -> Path:
    return FOLDER / (f"npm-{client.name}" if client.javascript else client.name)


def _lock(client: Client) -> Path:
    return HERE / f"locks/{client.name}.txt"


def _run(arguments: Sequence[str], cwd: Path) -> None:
    done = subprocess.run(
        arguments, cwd=cwd, env=variables({}), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
