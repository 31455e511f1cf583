"""Debian's Redis with TLS, and a sentinel for it, on ports of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import redis

from orchestrator.stack import Child
from orchestrator.stack.processes import free_port
from tests.certificates import Authority, Identity
from tests.faults import until
from tests.system.packages import redis_server

MASTER = "mymaster"


class TlsRedis:
    """A server and a sentinel that speak nothing but TLS, and ask clients for a certificate.

    Attributes:
        url: The server, with its password.
        sentinel_url: The same server, as the sentinel knows it.
        client: What clients show.
    """

    def __init__(self, folder: Path, authority: Authority, password: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._authority = folder, authority
        self._server = authority.sign("redis", hosts=("127.0.0.1", "localhost"))
        self.client: Identity = authority.sign("agentapi")
        self._password = password
        self._port, self._sentinel_port = free_port(), free_port()
        self.url = f"rediss://:{password}@localhost:{self._port}/0"
        self.sentinel_url = f"sentinels://:{password}@localhost:{self._sentinel_port}/0"
        self._children: list[Child] = []

    def start(self) -> None:
        """Start both, and wait until they answer."""
        program = redis_server()
        common = f"""bind 127.0.0.1
port 0
tls-cert-file {self._server.cert}
tls-key-file {self._server.key}
tls-ca-cert-file {self._authority.file}
tls-replication yes
"""
        configured = self._folder / "redis.conf"
        configured.write_text(
            f"{common}tls-port {self._port}\nrequirepass {self._password}\n"
            f"dir {self._folder}\nappendonly yes\n"
        )
        watching = self._folder / "sentinel.conf"
        watching.write_text(
            f"{common}tls-port {self._sentinel_port}\ndir {self._folder}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {self._port} 1\n"
            f"sentinel auth-pass {MASTER} {self._password}\n"
        )
        # The program is a sentinel when it is called by this name.
        named = self._folder / "redis-sentinel"
        named.symlink_to(shutil.which(program) or program)
        for command in ([program, configured], [named, watching]):
            name = Path(command[0]).name
            log = self._folder / f"{name}.log"
            self._children.append(Child(name, [str(part) for part in command], log=log))
        until(lambda: self._answers(self._port, self._password), 30, "Redis's answer")
        until(lambda: self._answers(self._sentinel_port, None), 30, "the sentinel's answer")

    def stop(self) -> None:
        """Stop both."""
        for child in self._children:
            child.stop()

    def _answers(self, port: int, password: str | None) -> bool:
        for child in self._children:
            child.check()
        client = redis.Redis(
            port=port,
            password=password,
            ssl=True,
            ssl_ca_certs=str(self._authority.file),
            ssl_certfile=str(self.client.cert),
            ssl_keyfile=str(self.client.key),
        )
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        finally:
            client.close()
