"""A RabbitMQ of its own for a test: no service, no user, all files in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import amqp

from orchestrator.stack import Child
from orchestrator.stack.processes import free_port
from tests.certificates import Authority
from tests.system.packages import rabbitmq

TIMEOUT: Final = 120.0
"""Seconds for a start. An Erlang node takes several, even on an idle machine."""

SETTLES: Final = 2.0
"""Seconds after which a new queue survives that its node is killed."""


class RabbitMQ:
    """A node with a user `guest`, on ports of its own.

    Attributes:
        url: For `AGENTAPI_BROKER_URL`.
        tls_url: The same with TLS; empty without an authority.
    """

    def __init__(self, folder: Path, authority: Authority | None = None) -> None:
        """Describe a node.

        Args:
            folder: For all its files.
            authority: Signs the certificate of its port with TLS, for the name ``localhost``.
        """
        self._folder = folder
        self._port, mapper = free_port(), free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text("")
        self.tls_url = ""
        if authority is not None:
            port = free_port()
            self.tls_url = f"amqps://guest:guest@localhost:{port}//"
            node = authority.sign("rabbitmq", hosts=("localhost",))
            (folder / "rabbitmq.conf").write_text(
                f"listeners.ssl.1 = 127.0.0.1:{port}\n"
                f"ssl_options.cacertfile = {authority.file}\n"
                f"ssl_options.certfile = {node.cert}\n"
                f"ssl_options.keyfile = {node.key}\n"
                "ssl_options.verify = verify_peer\n"
                "ssl_options.fail_if_no_peer_cert = true\n"
            )
        self._env = {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"test{self._port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        # Erlang's port mapper, which a node would otherwise leave running behind it.
        epmd = shutil.which("epmd") or "/usr/bin/epmd"
        self._mapper = Child(
            "epmd",
            [epmd, "-address", "127.0.0.1", "-port", str(mapper)],
            log=folder / "epmd.log",
            env=self._env,
        )
        self._node: Child | None = None

    def start(self) -> None:
        """Start the node, with what it stored before, and wait until it answers."""
        self._node = Child(
            "rabbitmq",
            [str(rabbitmq() / "rabbitmq-server")],
            log=self._folder / "rabbitmq.log",
            env=self._env,
        )
        deadline = time.monotonic() + TIMEOUT
        while not self._answers():
            self._node.check()
            assert time.monotonic() < deadline, (self._folder / "rabbitmq.log").read_text()
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill the node with SIGKILL, after it has written down which queues it has."""
        assert self._node is not None
        # Ra writes the names of new quorum queues to disk every half second. A node that is killed
        # before comes back with queues that never get a leader.
        time.sleep(SETTLES)
        self._end()

    def _end(self) -> None:
        assert self._node is not None
        # The script may be the parent of the node itself: both are in one session.
        os.killpg(self._node.pid, signal.SIGKILL)
        self._node.stop()
        self._node = None

    def stop(self) -> None:
        """Stop everything."""
        if self._node is not None:
            self._end()
        self._mapper.stop()

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl`; returns what it prints."""
        return subprocess.run(
            [str(rabbitmq() / "rabbitmqctl"), "--quiet", *arguments],
            env={**os.environ, **self._env},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        ).stdout

    def purge(self, queues: Sequence[str]) -> None:
        """Delete all messages of queues that no consumer has taken."""
        connection = self._connection()
        connection.connect()
        channel = connection.channel()
        for queue in queues:
            channel.queue_purge(queue)
        connection.close()

    def _connection(self) -> amqp.Connection:
        return amqp.Connection(f"127.0.0.1:{self._port}", "guest", "guest", virtual_host="/")

    def _answers(self) -> bool:
        connection = self._connection()
        try:
            connection.connect()
        except (OSError, amqp.AMQPError):
            return False
        connection.close()
        return True
