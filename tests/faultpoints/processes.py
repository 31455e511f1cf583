"""The runner's side of the processes: the zygote that forks them, and how they are asked."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final

from tests.faultpoints.effects import Fault

STARTS_WITHIN: Final = 240.0
"""Seconds in which a process must be ready, on a busy machine."""

ANSWERS_WITHIN: Final = 120.0
"""Seconds in which it must answer a question."""


class ProcessEnded(Exception):
    """The process is gone."""


class Zygote:
    """Forks processes with everything imported; see `tests.faultpoints.zygote`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "zygote.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faultpoints.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._forked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.codes: dict[int, int] = {}
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def fork(self, **request: Any) -> int:
        """Fork a child; see `tests.faultpoints.roles.become`. Returns its process id."""
        assert self._ready.wait(STARTS_WITHIN), f"the zygote did not start: {self._log.name}"
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return self._forked.get(timeout=STARTS_WITHIN)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "ended" in said:
                self.codes[said["ended"]] = said["code"]
            elif "pid" in said:
                # The system gives a number again, some time after its process ended.
                self.codes.pop(said["pid"], None)
                self._forked.put(said["pid"])
            else:
                self._ready.set()

    def close(self) -> None:
        """End it and all its children."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=5)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


class Forked:
    """A process in its role."""

    def __init__(self, zygote: Zygote, role: str, folder: Path, env: Mapping[str, str]) -> None:
        """Fork it; `wait_until_ready` tells when it has started."""
        self.role = role
        self.baseline: dict[str, Any] = {}
        self._zygote = zygote
        self.log = folder / f"{role}.log"
        # A socket's path has little room.
        self._address = f"/tmp/agentapi-faults-{os.getpid()}-{os.urandom(6).hex()}"
        self._listener = Listener(self._address, "AF_UNIX")
        self.pid = zygote.fork(
            role=role,
            address=self._address,
            log=str(self.log),
            fired=str(folder / "fired.jsonl"),
            env=dict(env),
        )
        self._connection: Connection | None = None
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._hung_up = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        connection: Any = self._listener.accept()
        self._connection = connection
        self._listener.close()
        with suppress(EOFError, OSError):
            while True:
                self._answers.put(json.loads(connection.recv_bytes()))
        self._hung_up.set()
        connection.close()

    def wait_until_ready(self) -> None:
        """Wait for the process to say so."""
        for _ in ("its name", "ready"):
            self._next(STARTS_WITHIN)
        self.baseline = self.ask("health")

    def ask(self, do: str, *, within: float = ANSWERS_WITHIN, **more: Any) -> Any:
        """Ask for something, and wait for the answer.

        Raises:
            ProcessEnded: The process is gone.
        """
        with self._lock:
            if self.ended or self._connection is None:
                raise ProcessEnded(self.role)
            try:
                self._connection.send_bytes(json.dumps({"do": do, **more}).encode())
            except OSError as error:
                raise ProcessEnded(self.role) from error
            return self._next(within)["answer"]

    def arm(self, faults: Sequence[Fault]) -> None:
        """Count its points from now on; these faults are to happen."""
        self.ask("arm", plan=[fault.to_json() for fault in faults])

    def _next(self, within: float) -> dict[str, Any]:
        deadline = time.monotonic() + within
        while True:
            ended = self.ended
            with suppress(queue.Empty):
                return self._answers.get(timeout=0.05)
            if ended:
                raise ProcessEnded(self.role)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the {self.role} did not answer; see {self.log}")

    @property
    def ended(self) -> bool:
        """Whether it is gone. A process that it forked may hold its socket for a while."""
        return self.pid in self._zygote.codes or self._hung_up.is_set()

    @property
    def counts(self) -> Path:
        """What it leaves when it ends in order: how often each point was passed."""
        return Path(f"{self.log}.{self.pid}")

    @property
    def exit_code(self) -> int | None:
        """How it ended, soon after it did."""
        deadline = time.monotonic() + 10
        while self.pid not in self._zygote.codes and time.monotonic() < deadline:
            time.sleep(0.01)
        return self._zygote.codes.get(self.pid)

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it now."""
        if not self.ended:
            self.signal(signal.SIGKILL)
            assert self.exit_code is not None
        if self._connection is None:
            # It never called: end the wait for it.
            with suppress(OSError):
                Client(self._address, "AF_UNIX").close()
        self._reader.join(timeout=5)
