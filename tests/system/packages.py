"""Programs of Debian packages, installed or unpacked into the repository's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

ENABLED: Final = "AGENTAPI_SYSTEM_TESTS"
"""The variable with which these tests are collected."""

_UNPACKED: Final = Path(__file__).parents[2] / ".tools" / "debian"

_TIMEOUT: Final = 600
"""Seconds for one command of apt-get."""

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")

_RABBITMQ: Final = Path("/usr/lib/rabbitmq/bin")
"""Where Debian puts the programs themselves; those in /usr/sbin change the user first."""


class Missing(RuntimeError):
    """A program is not there; says what to install."""


def promtool() -> Path:
    """The program that checks Prometheus's rules.

    Raises:
        Missing: It is not installed, and its package cannot be downloaded.
    """
    installed = shutil.which("promtool")
    if installed is not None:
        return Path(installed)
    unpacked = _UNPACKED / "usr" / "bin" / "promtool"
    if not unpacked.exists():
        _unpack("prometheus", "./usr/bin/promtool")
    return unpacked


def chromium() -> Path:
    """A Chromium that Playwright can drive.

    Raises:
        Missing: None is installed, and this user or machine cannot install Debian's package.
    """
    installed = _browser()
    if installed is None:
        _install("chromium")
        installed = _browser()
    if installed is None:
        raise Missing(_wanted("chromium", "chromium"))
    return installed


def rabbitmq() -> Path:
    """The folder with RabbitMQ's programs. The package's service is not started.

    Raises:
        Missing: It is not installed, and this user or machine cannot install Debian's package.
    """
    if not (_RABBITMQ / "rabbitmq-server").exists():
        _install("rabbitmq-server")
    if not (_RABBITMQ / "rabbitmq-server").exists():
        raise Missing(_wanted("RabbitMQ", "rabbitmq-server"))
    return _RABBITMQ


def redis_server() -> Path:
    """Debian's Redis, which has TLS. The package's service is not started.

    Raises:
        Missing: It is not installed, and this user or machine cannot install Debian's package.
    """
    return _program("redis-server", "Redis", "redis-server")


def systemd_analyze() -> Path:
    """The program that checks systemd's units. Its package starts nothing where systemd does not.

    Raises:
        Missing: It is not installed, and this user or machine cannot install Debian's package.
    """
    return _program("systemd-analyze", "systemd-analyze", "systemd")


def _program(program: str, title: str, package: str) -> Path:
    """A program on the path; Debian's package is installed if it is missing."""
    if shutil.which(program) is None:
        _install(package)
    installed = shutil.which(program)
    if installed is None:
        raise Missing(_wanted(title, package))
    return Path(installed)


def containers() -> None:
    """What takes the place of Docker: namespaces, and overlays of file systems.

    Raises:
        Missing: A program is not installed, or this user may not do it.
    """
    for program in ("chroot", "mount", "nsenter", "setpriv", "unshare"):
        if shutil.which(program) is None:
            raise Missing(f"make test-system needs {program}: apt-get install util-linux")
    if _run(["unshare", "--mount", "--pid", "--fork", "true"], "/"):
        raise Missing("make test-system needs namespaces: run it as root, on Linux")


def _browser() -> Path | None:
    found = (shutil.which(name) for name in _BROWSERS)
    return next((Path(path) for path in found if path), None)


def _wanted(program: str, package: str) -> str:
    return f"make test-system needs {program}: apt-get install {package}"


def _install(package: str) -> None:
    """Install a package. A browser needs many libraries, so that it cannot be just unpacked."""
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Missing(_wanted(package, package))
    install = ["apt-get", "install", "-y", "--no-install-recommends", package]
    if _run(install, "/") != 0:
        # Without lists of packages, or with old ones, there is nothing to install.
        _run(["apt-get", "update"], "/")
        _run(install, "/")


def _unpack(package: str, member: str) -> None:
    """Take one file out of a package. It is not installed, so no service of it starts."""
    wanted = _wanted(member.rpartition("/")[2], package)
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Missing(wanted)
    with tempfile.TemporaryDirectory() as folder:
        if not _download(package, folder):
            # Without lists of packages there is nothing to download. Only root may fetch them.
            _run(["apt-get", "update"], folder)
            if not _download(package, folder):
                raise Missing(wanted)
        [archive] = Path(folder).glob("*.deb")
        _UNPACKED.mkdir(parents=True, exist_ok=True)
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as p:
            done = subprocess.run(
                ["tar", "-x", "-C", str(_UNPACKED), member], stdin=p.stdout, check=False
            )
        if done.returncode:
            raise Missing(wanted)


def _download(package: str, folder: str) -> bool:
    return _run(["apt-get", "download", package], folder) == 0


def _run(command: list[str], folder: str) -> int:
    try:
        return subprocess.run(
            command,
            cwd=folder,
            # The last two keep a package from starting its service.
            env={
                **os.environ,
                "DEBIAN_FRONTEND": "noninteractive",
                "SYSTEMD_OFFLINE": "1",
                "RUNLEVEL": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return 1
