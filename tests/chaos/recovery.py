"""How long the turns of a worker that went away wait for another one."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from tests.chaos.checker import AWAY, client_of, turn_key
from tests.lua import turn_of


@dataclass
class _Orphan:
    turn: str
    cause: str
    since: float
    attempt: int


class RecoveryClock:
    """Watches orphaned turns until they are claimed again."""

    def __init__(self, url: str) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._client = client_of(url)
        self._orphans: list[_Orphan] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> RecoveryClock:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def running_on(self, worker: str, turns: list[str]) -> dict[str, int]:
        """Which of these turns a worker runs now, and their attempt."""
        return {
            turn: int(attempt)
            for turn, (status, owner, attempt) in self._look(turns).items()
            if status == "running" and str(owner).startswith(f"{worker}@")
        }

    def start(self, cause: str, turns: dict[str, int]) -> None:
        """The worker of these turns is gone from now on."""
        now = time.monotonic()
        with self._lock:
            self._orphans += [_Orphan(turn, cause, now, n) for turn, n in turns.items()]

    def _look(self, turns: list[str]) -> dict[str, tuple[Any, Any, Any]]:
        pipeline = self._client.pipeline(transaction=False)
        for turn in turns:
            pipeline.hmget(turn_key(turn), "status", "worker", "attempt")
        found = dict(zip(turns, pipeline.execute(), strict=True))
        for turn, (status, worker, attempt) in found.items():
            if status == "completed" and attempt is None:
                # Its record is packed.
                attempt = turn_of(self._client, turn_key(turn)).get("attempt")
            found[turn] = (status, worker, attempt)
        return found

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            with self._lock:
                orphans = list(self._orphans)
            if not orphans:
                continue
            try:
                seen = self._look([orphan.turn for orphan in orphans])
            except AWAY:
                continue
            now = time.monotonic()
            for orphan in orphans:
                status, _, attempt = seen[orphan.turn]
                if int(attempt or 0) > orphan.attempt:
                    self.seconds[orphan.cause].append(now - orphan.since)
                elif status not in ("completed", "failed", "cancelled"):
                    continue
                with self._lock:
                    self._orphans.remove(orphan)
