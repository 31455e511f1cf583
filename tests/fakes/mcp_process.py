"""Runs `tests.fakes.mcp_server` over HTTP, in a process that can be killed and restarted."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from sys import executable

from orchestrator.stack import Child
from orchestrator.stack.processes import free_port

MODULE = ("-m", "tests.fakes.mcp_server")
ROOT = Path(__file__).parents[2]


class McpProcess:
    """One server, always at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/mcp"
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.process = Child(
            "mcp",
            [executable, *MODULE, str(self._port)],
            log=self._folder / "mcp.log",
            env={**os.environ, "PYTHONPATH": str(ROOT), "SHELF_OWNER": "bob"},
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline, self.process.tail()
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """Kill it with SIGKILL, because with SIGTERM it would wait for connected clients."""
        self.process.kill()
