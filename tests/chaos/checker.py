"""What really happened, from Redis, the ledger and the producer's journal.

It shares no code with the runtime: it reads the keys as docs/protocol.md describes them.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis


@dataclass(frozen=True)
class AcceptedTurn:
    """A turn that `enqueue` answered for."""

    conversation: str
    turn: str


@dataclass
class Findings:
    """Everything that must be zero, with the turns it happened to; and a few plain counts."""

    lost: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    half_visible: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    steps_run_again: list[str] = field(default_factory=list)
    charged_twice: list[str] = field(default_factory=list)
    event_gaps: list[str] = field(default_factory=list)
    takeovers: int = 0
    unknown_outcomes: int = 0

    @property
    def zeros(self) -> dict[str, list[str]]:
        return {
            "lost": self.lost,
            "failed": self.failed,
            "committed twice": self.doubled,
            "out of order": self.disordered,
            "half visible": self.half_visible,
            "messages of no accepted turn": self.foreign,
            "recorded steps run again": self.steps_run_again,
            "non-idempotent calls made twice": self.charged_twice,
            "events lost or repeated": self.event_gaps,
        }


def conversation_key(conversation: str, what: str) -> str:
    return f"agentapi:{{{zlib.crc32(conversation.encode()) % 256:03d}}}:c:{conversation}:{what}"


def turn_key(turn: str) -> str:
    return f"agentapi:{{{turn[:3]}}}:t:{turn}"


def whole(messages: Sequence[dict[str, Any]]) -> bool:
    """Whether each turn begins with the user and ends with a reply that calls nothing."""
    before: dict[str, Any] | None = None
    for message in messages:
        new = before is None or message["turn_id"] != before["turn_id"]
        if new and message["role"] != "user":
            return False
        if new and before is not None and not ends(before):
            return False
        before = message
    return before is None or ends(before)


def ends(message: dict[str, Any]) -> bool:
    return message["role"] == "assistant" and not message.get("tool_calls")


class Watcher:
    """A thread that reads histories all the time and looks for half a turn."""

    def __init__(self, url: str, conversations: Sequence[str]) -> None:
        self.half_visible: list[str] = []
        self.reads = 0
        self._url = url
        self._conversations = conversations
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        client = redis.Redis.from_url(self._url, socket_timeout=5)
        position = 0
        while not self._stop.wait(0.005):
            conversation = self._conversations[position % len(self._conversations)]
            position += 1
            try:
                raw: Any = client.lrange(conversation_key(conversation, "messages"), 0, -1)
            except redis.RedisError:
                continue
            self.reads += 1
            if not whole([json.loads(message) for message in raw]):
                self.half_visible.append(conversation)
        client.close()


def check(url: str, accepted: Sequence[AcceptedTurn], ledger: Path) -> Findings:
    """Read everything once the run is over."""
    client = redis.Redis.from_url(url, decode_responses=True)
    found = Findings()
    in_order: dict[str, list[str]] = defaultdict(list)
    failed = {
        turn.turn for turn in accepted if client.hget(turn_key(turn.turn), "status") == "failed"
    }
    for turn in accepted:
        in_order[turn.conversation].append(turn.turn)
    for conversation, turns in in_order.items():
        raw: Any = client.lrange(conversation_key(conversation, "messages"), 0, -1)
        messages = [json.loads(message) for message in raw]
        if not whole(messages):
            found.half_visible.append(conversation)
        said = [message["turn_id"] for message in messages if message["role"] == "user"]
        times = Counter(said)
        found.lost += [turn for turn in turns if not times[turn] and turn not in failed]
        found.doubled += [turn for turn, count in times.items() if count > 1]
        known = set(turns)
        found.foreign += [turn for turn in times if turn not in known]
        if [turn for turn in said if times[turn] == 1] != [t for t in turns if times[t] == 1]:
            found.disordered.append(conversation)
        found.unknown_outcomes += sum("outcome" in m["content"] for m in messages
                                      if m["role"] == "tool")  # fmt: skip
    runs = [run for line in ledger.read_text().splitlines() if "step" in (run := json.loads(line))]
    by_turn: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        by_turn[run["turn"]].append(run)
    for turn in accepted:
        _check_turn(client, turn.turn, by_turn[turn.turn], found)
    client.close()
    return found


def _check_turn(
    client: redis.Redis, turn: str, runs: Sequence[dict[str, Any]], found: Findings
) -> None:
    status: Any = client.hget(turn_key(turn), "status")
    if status != "completed":
        (found.failed if status == "failed" else found.lost).append(f"{turn} is {status}")
    entries: Any = client.xrange(f"{turn_key(turn)}:events")
    numbers = [int(entry[0].partition("-")[0]) for entry in entries]
    if numbers != list(range(1, len(numbers) + 1)):
        found.event_gaps.append(turn)
    # How many steps were recorded when each attempt began.
    began_behind: list[int] = []
    recorded = 0
    for _, fields in entries:
        if fields["type"] == "started":
            began_behind.append(recorded)
        elif fields["type"] == "step":
            recorded += 1
    found.takeovers += max(0, len(began_behind) - 1)
    executions = Counter(run["step"] for run in runs)
    for step, count in executions.items():
        if count > sum(behind <= step for behind in began_behind):
            found.steps_run_again.append(f"{turn} step {step}")
    for run in runs:
        if "attempt" in run and began_behind[run["attempt"] - 1] > run["step"]:
            found.steps_run_again.append(f"{turn} step {run['step']}")
    if sum(run["kind"] == "charge" for run in runs) > 1:
        found.charged_twice.append(turn)
