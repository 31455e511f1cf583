"""What a newer release would leave in Redis while old workers still run beside it."""

from __future__ import annotations

import io
import json
import random
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agentapi import Settings
from agentapi.errors import AgentAPIError, StoreUnavailable, TurnFailed
from orchestrator import Orchestrator, TurnHandle
from tests.chaos.checker import AWAY, client_of, conversation_key, turn_key

PATIENCE = 120.0


def release(commit: str, folder: Path) -> Mapping[str, str]:
    """Variables for a worker of another release, from this repository; none without a commit."""
    if not commit:
        return {}
    folder.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "archive", commit, "agentapi", "workers"],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    # Before what lies in the working directory, where the agents are found all the same.
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


class Skew:
    """Leaves such things, each with turns beside it; says in the end what became of those."""

    def __init__(self, settings: Settings, url: str, seed: int) -> None:
        self._orchestrator = Orchestrator(settings)
        self._client: Any = client_of(url)
        self._chance = random.Random(seed)
        self._count = 0
        self._innocent: list[TurnHandle] = []
        self._concerned: list[TurnHandle] = []
        self._left_to_others: list[TurnHandle] = []
        self._left: list[Callable[[], None]] = []

    def plant(self) -> None:
        """Leave something; each kind once before any of them twice."""
        if not self._left:
            self._left = [self._errand, self._message, self._fields, self._event, self._turn_field]
            self._chance.shuffle(self._left)
        self._count += 1
        try:
            self._left.pop()()
        except (StoreUnavailable, *AWAY):
            # Another fault is under way.
            return

    def close(self) -> list[str]:
        """What is wrong: innocents without a reply, concerned turns that have not ended."""
        for handle in self._left_to_others:
            # Nobody newer comes: whoever waits gives up.
            handle.cancel()
        concerned = [*self._concerned, *self._left_to_others]
        problems = [*map(self._no_reply, self._innocent), *map(self._no_end, concerned)]
        self._orchestrator.close()
        self._client.close()
        return [problem for problem in problems if problem]

    def _enqueue(self, message: str = "hi") -> TurnHandle:
        return self._orchestrator.enqueue(
            "chaos",
            message,
            conversation_id=f"skew:{self._count}",
            idempotency_key=f"skew:{self._count}",
        )

    def _errand(self) -> None:
        """An entry of a kind that nobody here knows, overdue for ever."""
        partition = self._chance.randrange(256)
        entry = f"\1newkind:{partition:03d}-{'0' * 32}"
        self._client.zadd(f"agentapi:{{{partition:03d}}}:due", {entry: 1})

    def _message(self) -> None:
        """A message of the next version in a history: its next turn is left to newer workers."""
        self._remember({"v": 2, "role": "user", "parts": [{"text": "hi"}], "turn_id": "n"})
        self._left_to_others.append(self._enqueue())

    def _fields(self) -> None:
        """Messages with a field that was added: nobody minds."""
        for message in (
            {"v": 1, "role": "user", "content": "hi", "turn_id": "n", "mood": "new"},
            {"v": 1, "role": "assistant", "content": "yo", "turn_id": "n", "mood": {"new": 1}},
        ):
            self._remember(message)
        self._innocent.append(self._enqueue())

    def _event(self) -> None:
        """An event of a kind that nobody here knows, in a turn that somebody follows."""
        handle = self._enqueue('/work {"seconds": 1}')
        key = turn_key(handle.turn_id)
        number = self._client.hincrby(key, "events", 1)
        self._client.xadd(f"{key}:events", {"type": "dreamt", "data": "{}"}, id=f"{number}-0")
        self._concerned.append(handle)

    def _turn_field(self) -> None:
        """A field that was added to a turn."""
        handle = self._enqueue('/work {"seconds": 1}')
        self._client.hset(turn_key(handle.turn_id), "colour", "new")
        self._innocent.append(handle)

    def _remember(self, message: dict[str, Any]) -> None:
        key = conversation_key(f"skew:{self._count}", "messages")
        self._client.rpush(key, json.dumps(message, separators=(",", ":")))

    def _no_reply(self, handle: TurnHandle) -> str:
        try:
            handle.result(timeout=PATIENCE)
        except AgentAPIError as error:
            return f"beside a newer release: {handle.turn_id}: {type(error).__name__}: {error}"
        return ""

    def _no_end(self, handle: TurnHandle) -> str:
        try:
            handle.result(timeout=PATIENCE)
        except TurnFailed:
            return ""
        except (AgentAPIError, ValueError) as error:
            if handle.status().ended:
                return ""
            return f"concerned by a newer release: {handle.turn_id} has not ended: {error}"
        return ""
