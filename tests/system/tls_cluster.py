"""A cluster of Debian's Redis that speaks nothing but TLS."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

from orchestrator.stack import Child
from orchestrator.stack.cluster import Cluster
from tests.certificates import Authority
from tests.faults import until
from tests.system.packages import Missing, redis_server


class TlsCluster(Cluster):
    """Three primaries and three replicas with one certificate, which has the name of this machine
    and no address. They ask clients for a certificate, and promote replicas after two seconds.

    Attributes:
        tls: Settings of clients.
    """

    def __init__(self, folder: Path, authority: Authority, password: str) -> None:
        """Start it. Its nodes announce their addresses.

        Raises:
            Missing: This machine's name has no address.
        """
        # redis-py would turn "localhost" into an address.
        self._name = socket.gethostname()
        try:
            self.host = socket.gethostbyname(self._name)
        except OSError as error:
            raise Missing(f"make test-system needs {self._name!r} in /etc/hosts") from error
        shown = authority.sign("client")
        self._files = {
            "tls-cert-file": str((node := authority.sign("node", hosts=(self._name,))).cert),
            "tls-key-file": str(node.key),
            "tls-ca-cert-file": str(authority.file),
        }
        self.tls: dict[str, Any] = {
            "tls_ca_file": str(authority.file),
            "tls_cert_file": str(shown.cert),
            "tls_key_file": str(shown.key),
        }
        self.password = password
        self._announced: dict[str, str] = {}
        super().__init__(folder, node_timeout=2)
        self.url = ";".join(
            f"rediss+cluster://:{password}@{self._name}:{port}" for port in self.ports
        )

    def announce_names(self) -> None:
        """Let the nodes name themselves as in their certificate; returns when all know it."""
        # For those that are started again, too.
        self._announced = {
            "cluster-announce-hostname": self._name,
            "cluster-preferred-endpoint-type": "hostname",
        }
        for port in self.ports:
            with self.connected(port) as client:
                for name, value in self._announced.items():
                    client.config_set(name, value)
        until(lambda: all(map(self._names_all, self.ports)), 60, "the names of all nodes")

    def _names_all(self, port: int) -> bool:
        with self.connected(port) as client:
            seen = client.execute_command("CLUSTER NODES").values()
            return all(node["hostname"] == self._name for node in seen)

    def run(self, folder: Path, port: int, options: Mapping[str, str]) -> Child:
        """Run Redis."""
        folder.mkdir(parents=True, exist_ok=True)
        given = {
            "bind": self.host,
            "port": "0",
            "tls-port": str(port),
            "tls-cluster": "yes",
            "tls-replication": "yes",
            "dir": str(folder),
            "save": "",
            "appendonly": "yes",
            "requirepass": str(self.password),
            "masterauth": str(self.password),
            **self._files,
            **self._announced,
            **options,
        }
        command = [str(redis_server())]
        for name, value in given.items():
            command += [f"--{name}", value]
        child = Child("redis", command, log=folder / "redis.log")
        until(lambda: self._answers(child, port), 60, "Redis's answer")
        return child

    def _answers(self, child: Child, port: int) -> bool:
        child.check()
        try:
            with self.connected(port) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False

    def client(self, port: int) -> redis.Redis:
        """A client of one node."""
        return redis.Redis(
            host=self._name,
            port=port,
            password=self.password,
            socket_timeout=10,
            ssl=True,
            ssl_ca_certs=self.tls["tls_ca_file"],
            ssl_certfile=self.tls["tls_cert_file"],
            ssl_keyfile=self.tls["tls_key_file"],
        )
