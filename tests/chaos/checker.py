"""Finds out what really happened, from Redis, the ledger and the producer's journal.

It shares no code with the runtime: it reads the keys as docs/protocol.md describes them.
"""

from __future__ import annotations

import json
import math
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException
from redis.sentinel import Sentinel

from tests.chaos.loss import Loss
from tests.chaos.sentinels import MASTER

LAG: Final = 1.0
"""Seconds that a replica may have been behind before it was cut off, on a busy machine."""

AWAY: Final = (redis.RedisError, RedisClusterException)
"""Errors that clients raise while a server is unavailable."""

Run = Mapping[str, Any]
"""A line of the ledger."""


@dataclass(frozen=True)
class AcceptedTurn:
    """A turn that `enqueue` accepted.

    Attributes:
        conversation: Its conversation.
        turn: Its id.
        at: When it was accepted, by the machine's monotonic clock.
    """

    conversation: str
    turn: str
    at: float = -math.inf


@dataclass
class Findings:
    """Everything that must be zero, with the affected turns, and a few plain counts.

    Losses with a master are reported but need not be zero: turns whose acceptance only the old
    master knew, and turns that ran again because only the old master knew their progress.
    """

    lost: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    half_visible: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    steps_run_again: list[str] = field(default_factory=list)
    charged_twice: list[str] = field(default_factory=list)
    event_gaps: list[str] = field(default_factory=list)
    two_owners: list[str] = field(default_factory=list)
    lost_with_master: list[str] = field(default_factory=list)
    repeated_after_loss: int = 0
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
            "turns written by two owners": self.two_owners,
        }


def conversation_key(conversation: str, what: str) -> str:
    return f"agentapi:{{{zlib.crc32(conversation.encode()) % 256:03d}}}:c:{conversation}:{what}"


def turn_key(turn: str) -> str:
    return f"agentapi:{{{turn[:3]}}}:t:{turn}"


def whole(messages: Sequence[dict[str, Any]]) -> bool:
    """Whether each turn begins with a user message and ends with a reply without calls."""
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


def client_of(url: str) -> Any:
    """A client of a server, of the master that sentinels name, or of a cluster."""
    options: dict[str, Any] = {"decode_responses": True, "socket_timeout": 5}
    if url.startswith("redis+cluster://"):
        node: Any = ClusterNode
        nodes = [node("127.0.0.1", urlsplit(part).port) for part in url.split(";")]
        return redis.RedisCluster(startup_nodes=nodes, **options)
    if not url.startswith("sentinel://"):
        return redis.Redis.from_url(url, **options)
    addresses = [urlsplit(part) for part in url.split(";")]
    make: Any = Sentinel
    sentinel = make([(address.hostname, address.port) for address in addresses], socket_timeout=2)
    return sentinel.master_for(MASTER, **options)


class Watcher:
    """A thread that keeps reading histories and looks for incomplete turns."""

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
        client = client_of(self._url)
        position = 0
        while not self._stop.wait(0.005):
            conversation = self._conversations[position % len(self._conversations)]
            position += 1
            try:
                raw: Any = client.lrange(conversation_key(conversation, "messages"), 0, -1)
            except AWAY:
                continue
            self.reads += 1
            if not whole([json.loads(message) for message in raw]):
                self.half_visible.append(conversation)
        client.close()


def check(
    url: str, accepted: Sequence[AcceptedTurn], ledger: Path, losses: Sequence[Loss] = ()
) -> Findings:
    """Check everything after the run.

    Args:
        url: The server, or the new master.
        accepted: The accepted turns, in order.
        ledger: The lines that the workers wrote.
        losses: Failovers that lost data that the replica had not received.
    """
    client = client_of(url)
    found = Findings()
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    by_turn: dict[str, list[Run]] = defaultdict(list)
    for line in lines:
        by_turn[line["turn"]].append(line)
    there = []
    for turn in accepted:
        status: Any = client.hget(turn_key(turn.turn), "status")
        own = [loss for loss in losses if loss.concerns(turn.turn)]
        if status is None and any(lost_with(loss, turn.at) for loss in own):
            found.lost_with_master.append(turn.turn)
        else:
            there.append(turn)
            _check_turn(client, turn.turn, status, by_turn[turn.turn], own, found)
    _check_histories(client, there, found)
    client.close()
    return found


def lost_with(loss: Loss, at: float) -> bool:
    """Whether a write that was acknowledged at that time may be lost with the master."""
    return loss.cut - LAG <= at <= loss.served


def _check_histories(client: Any, accepted: Sequence[AcceptedTurn], found: Findings) -> None:
    in_order: dict[str, list[str]] = defaultdict(list)
    for turn in accepted:
        in_order[turn.conversation].append(turn.turn)
    told = {entry.partition(" ")[0] for entry in (*found.failed, *found.lost)}
    for conversation, turns in in_order.items():
        raw: Any = client.lrange(conversation_key(conversation, "messages"), 0, -1)
        messages = [json.loads(message) for message in raw]
        if not whole(messages):
            found.half_visible.append(conversation)
        said = [message["turn_id"] for message in messages if message["role"] == "user"]
        times = Counter(said)
        found.lost += [turn for turn in turns if not times[turn] and turn not in told]
        found.doubled += [turn for turn, count in times.items() if count > 1]
        known = set(turns)
        found.foreign += [turn for turn in times if turn not in known]
        if [turn for turn in said if times[turn] == 1] != [t for t in turns if times[t] == 1]:
            found.disordered.append(conversation)
        found.unknown_outcomes += sum("outcome" in m["content"] for m in messages
                                      if m["role"] == "tool")  # fmt: skip


def _check_turn(
    client: Any,
    turn: str,
    status: Any,
    lines: Sequence[Run],
    losses: Sequence[Loss],
    found: Findings,
) -> None:
    if status != "completed":
        (found.failed if status == "failed" else found.lost).append(f"{turn} is {status}")
    entries: Any = client.xrange(f"{turn_key(turn)}:events")
    numbers = [int(entry[0].partition("-")[0]) for entry in entries]
    if numbers != list(range(1, len(numbers) + 1)):
        found.event_gaps.append(turn)
    if two_owners([line for line in lines if line["kind"] == "write"], losses):
        found.two_owners.append(turn)
    kinds = [fields["type"] for _, fields in entries]
    found.takeovers += max(0, kinds.count("started") - 1)
    runs = [line for line in lines if "step" in line]
    again = steps_run_again(kinds, runs)
    charged_twice = sum(run["kind"] == "charge" for run in runs) > 1
    if any(lost_with(loss, line["at"]) for loss in losses for line in lines):
        # The new master did not know it.
        found.repeated_after_loss += bool(again or charged_twice)
        return
    found.steps_run_again += [f"{turn} step {step}" for step in again]
    if charged_twice:
        found.charged_twice.append(turn)


def steps_run_again(kinds: Sequence[str], runs: Sequence[Run]) -> set[int]:
    """Steps that ran again although they were recorded.

    Args:
        kinds: Types of the turn's events.
        runs: Executions of the turn.
    """
    # How many steps were recorded when each attempt began.
    began_behind: list[int] = []
    recorded = 0
    for kind in kinds:
        if kind == "started":
            began_behind.append(recorded)
        elif kind == "step":
            recorded += 1
    executions = Counter(run["step"] for run in runs)
    again = {
        step
        for step, count in executions.items()
        if count > sum(behind <= step for behind in began_behind)
    }
    for run in runs:
        attempt = run.get("attempt", 0)
        if 0 < attempt <= len(began_behind) and began_behind[attempt - 1] > run["step"]:
            again.add(run["step"])
    return again


def two_owners(writes: Sequence[Run], losses: Sequence[Loss]) -> bool:
    """Whether two claims wrote to a turn as if each were its only owner.

    Each claim has a unique epoch across all servers that were ever master, and on one server no
    claim writes after a later one has written. A server stops being master when it is killed.
    """
    claims: dict[int, str] = {}
    for write in writes:
        if claims.setdefault(write["epoch"], write["token"]) != write["token"]:
            return True
    for early in writes:
        for late in writes:
            same_reign = not any(early["at"] <= loss.killed <= late["at"] for loss in losses)
            # Definitely later: it began after the other had been answered.
            if same_reign and early["at"] < late["began"] and late["epoch"] < early["epoch"]:
                return True
    return False
