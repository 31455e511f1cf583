"""Whether a run kept the promises, seen from outside: from Redis, the ledger and the caller.

It shares no code with the runtime: it reads the keys as docs/protocol.md describes them.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import redis

from tests.chaos.checker import conversation_key, turn_key, whole
from tests.faultpoints.archive import LIMIT, ArchiveFile, aside_key, version_of
from tests.lua import turn_of

ENDED: Final = frozenset({"completed", "failed", "cancelled"})
ONCE: Final = frozenset({"charge", "sign"})
"""Tools of the agents that are not idempotent."""

PASSING: Final = ("agentapi:broker:", "agentapi:wake:", "agentapi:provider:", "agentapi:gateway:")
"""Keys that are no turn's: the broker's, those of readers and providers."""


KEPT: Final = (":c:", ":t:", ":list:")
"""Parts of the names of what is kept of conversations and turns."""

_EXPELLED: Final = {"status": "completed", "agent": ""}
"""What is known of a turn that was deleted since more had ended than are kept."""

HOOKED: Final = ("lead", "doomed")
"""Agents whose hook is told of ends."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a run may do.

    Attributes:
        accepted: Conversation and id of each turn that was accepted, in order.
        cancelled: Whether turns were cancelled.
        may_fail: How many turns the faults may have failed.
        forgotten: Prefixes of conversations that were deleted.
    """

    accepted: Sequence[tuple[str, str]]
    cancelled: bool = False
    may_fail: int = 0


@dataclass
class State:
    """All that Redis keeps of the conversations."""

    turns: dict[str, dict[str, str]] = field(default_factory=dict)
    due: dict[str, list[str]] = field(default_factory=dict)
    untold: dict[str, list[str]] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)

    @property
    def quiet(self) -> bool:
        """Whether nothing is left to do."""
        ended = all(turn.get("status") in (*ENDED, "merged") for turn in self.turns.values())
        return ended and not any(self.due.values()) and not any(self.untold.values())


def _leaves(turn: Mapping[str, str]) -> bool:
    """Whether a turn that has ended is in the history."""
    kept = turn.get("status") == "failed" and turn.get("kept") == "1"
    return kept or turn.get("status") == "completed"


class Witness:
    """Looks at one database of a server."""

    def __init__(self, url: str, ledger: Path, archive: ArchiveFile) -> None:
        self._client: Any = redis.Redis.from_url(url, decode_responses=True, socket_timeout=10)
        self._ledger = ledger
        self._archive = archive
        self._read_to = 0

    def close(self) -> None:
        self._client.close()

    def look(self) -> State:
        """Read it."""
        state = State()
        names = [
            name for name in self._client.scan_iter(count=1000) if not name.startswith(PASSING)
        ]
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.pttl(name)
        state.keys = dict(zip(names, pipeline.execute(), strict=True))
        for name in names:
            if name.endswith(":due"):
                state.due[name] = self._client.zrange(name, 0, -1)
            elif name.endswith(":untold"):
                state.untold[name] = self._client.zrange(name, 0, -1)
            elif ":list:moved:" in name:
                state.moved.update(self._client.zrange(name, 0, -1))
            elif ":t:" in name and name.rpartition(":")[0].endswith(":t"):
                state.turns[name.rpartition(":")[2]] = turn_of(self._client, name)
        return state

    def wait_until_quiet(self, seconds: float) -> State:
        """Wait until all turns have ended and nothing is due."""
        deadline = time.monotonic() + seconds
        while not self.look().quiet and time.monotonic() < deadline:
            time.sleep(0.05)
        # Once more: it is read key by key, and the last of them may have changed meanwhile.
        return self.look()

    def clean_up(self) -> None:
        """Delete what is kept of conversations."""
        names = list(self._client.scan_iter(match="agentapi:{*", count=1000))
        kinds = (":due", ":untold", ":ends", ":copies")
        names = [n for n in names if n.endswith(kinds) or any(k in n for k in KEPT)]
        if names:
            self._client.delete(*names)

    def runs(self) -> list[dict[str, Any]]:
        """What models and tools were asked since this was last called."""
        with self._ledger.open("rb") as ledger:
            ledger.seek(self._read_to)
            lines = ledger.readlines()
            self._read_to = ledger.tell()
        return [json.loads(line) for line in lines]

    def broken(self, state: State, expected: Expected, story: Mapping[str, Any]) -> list[str]:
        """Which promises were broken, in words."""
        runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for run in self.runs():
            runs[run["turn"]].append(run)
        found = self._records(state, expected, story.get("expelled", ()))
        found += _endings(state, expected, story)
        found += _left_over(state)
        for conversation in {name for name, _ in expected.accepted}:
            found += self._history(state, expected, conversation)
            found += self._copies(conversation)
        for turn in state.turns:
            found += self._turn(state, turn, runs[turn])
        for turn, events in story.get("events", {}).items():
            numbers = [number for number, _ in events]
            if numbers != list(range(len(numbers))):
                found.append(f"the caller got events {numbers} of {turn}")
            if turn in state.turns and (not events or events[-1][1] not in ENDED):
                found.append(f"the caller did not get the event that ends {turn}")
        return found

    def _records(self, state: State, expected: Expected, expelled: Sequence[str]) -> list[str]:
        """Promises 3 and 4: each record is in one place, Redis or the archive; only those that are
        too many are gone. From here on the state has all of them."""
        found = []
        if len(expelled) > max(0, len(set(expected.accepted)) - LIMIT):
            found.append(f"more turns were deleted than are too many: {expelled}")
        for turn in {*state.turns, *state.moved, *expelled}:
            copies = self._archive.turns(turn)
            if len(copies) != (turn in state.moved):
                found.append(f"the archive has {len(copies)} copies of {turn}")
            if turn in state.moved and turn in state.turns:
                found.append(f"{turn} is in the archive and in Redis")
            if turn in state.moved and copies:
                state.turns[turn] = copies[-1]
        # They had ended well, or they would not have been in the archive.
        return found + [
            f"{turn} was deleted, and is there"
            for turn in expelled
            if state.turns.setdefault(turn, _EXPELLED) is not _EXPELLED
        ]

    def _messages(self, conversation: str) -> list[dict[str, Any]]:
        version = version_of(self._client, conversation)
        if version is not None:
            return self._archive.messages(conversation, version)
        raw = self._client.lrange(conversation_key(conversation, "messages"), 0, -1)
        return [json.loads(message) for message in raw]

    def _copies(self, conversation: str) -> list[str]:
        """Promises 1 and 4: what is in the archive is there once, and no more in Redis."""
        version = version_of(self._client, conversation)
        found = []
        if self._archive.versions(conversation) != [version][: version is not None]:
            found.append(f"the archive has copies of {conversation} that nothing names, or none")
        keys = [conversation_key(conversation, what) for what in ("messages", "blobs")]
        if version is not None and self._client.exists(*keys):
            found.append(f"{conversation} is in the archive and in Redis")
        return found

    def _history(self, state: State, expected: Expected, conversation: str) -> list[str]:
        """Promises 2, 4 and 9: in order, once, whole."""
        found = []
        messages = self._messages(conversation)
        # A turn that failed has left what it did, without a reply.
        failed = {turn for turn, fields in state.turns.items() if fields.get("status") == "failed"}
        if not whole([message for message in messages if message["turn_id"] not in failed]):
            found.append(f"half a turn is in the history of {conversation}")
        said = [message["turn_id"] for message in messages if message["role"] == "user"]
        # Messages that steered a turn are its own from then on.
        joined = Counter(fields.get("into") for fields in state.turns.values())
        due = [
            told
            # Whoever repeats a message that has joined a turn is told of that turn.
            for name, turn in dict.fromkeys(expected.accepted)
            if name == conversation and _leaves(state.turns.get(turn, {}))
            for told in [turn] * (1 + joined[turn])
        ]
        if said != due:
            found.append(f"the history of {conversation} has turns {said}, expected {due}")
        asked = Counter(
            (message["turn_id"], call["id"])
            for message in messages
            for call in message.get("tool_calls") or ()
        )
        answered = Counter(
            (message["turn_id"], message["call_id"])
            for message in messages
            if message["role"] == "tool"
        )
        if asked != answered:
            found.append(f"calls and results differ in the history of {conversation}")
        return found

    def _turn(self, state: State, turn: str, runs: Sequence[dict[str, Any]]) -> list[str]:
        """Promises 6 and 10: no recorded step again, no gap."""
        entries = self._client.xrange(f"{turn_key(turn)}:events")
        entries = entries or self._client.xrange(aside_key(turn))
        if not entries:
            return []
        found = list(self._recalled(state, turn, runs))
        numbers = [int(entry[0].partition("-")[0]) for entry in entries]
        if numbers != list(range(1, len(numbers) + 1)):
            found.append(f"events of {turn} have gaps")
        types = [fields["type"] for _, fields in entries]
        if state.turns[turn]["status"] == "merged":
            return [*found, *([] if types == ["joined"] else [f"{turn} joined one, with {types}"])]
        retried = [(now, then) for now, then in pairwise(types) if now in ENDED]
        if types[-1] not in ENDED or any(pair != ("failed", "retried") for pair in retried):
            found.append(f"events of {turn} end more than once, or not: {types}")
        status = state.turns[turn]["status"]
        if types[-1] != status:
            found.append(f"{turn} is {status}, and its last event is {types[-1]}")
        found += self._text(turn, entries, state.turns[turn])
        end = f"{turn}:{numbers[-1] - 1}"
        told = {run["end"] for run in runs if run["kind"] == "told"}
        if state.turns[turn]["agent"] in HOOKED and end not in told:
            found.append(f"no hook was told of the end of {turn}")
        return found + _repeated(turn, entries, runs)

    def _recalled(self, state: State, turn: str, runs: Sequence[dict[str, Any]]) -> Iterator[str]:
        """Promise 4: who reads a turn gets its reply, wherever it is."""
        for run in runs:
            if run["kind"] == "recalled":
                history = self._messages(state.turns[turn]["conversation"])
                said = [message for message in history if message["turn_id"] == run["of"]]
                if said and said[-1]["content"] != run["text"]:
                    yield f"{turn} read {run['text']!r}, and {run['of']} has {said[-1]!r}"

    def _text(self, turn: str, entries: Sequence[Any], fields: Mapping[str, str]) -> list[str]:
        """Promise 10: the text that was shown last is the reply."""
        if fields.get("stream") != "1" or fields["status"] != "completed":
            return []
        shown = ""
        for _, event in entries:
            if event["type"] == "delta":
                shown += json.loads(event["data"])["text"]
            elif event["type"] in ("reset", "step"):
                shown = ""
        said = json.loads(fields.get("outcome", "{}")).get("messages")
        if not said:
            # The turn refers to its messages in the history.
            history = self._messages(fields["conversation"])
            said = [message for message in history if message["turn_id"] == turn]
        reply = said[-1]["content"] if said else None
        return [] if shown == reply else [f"{turn} showed {shown!r} and replied {reply!r}"]


def _endings(state: State, expected: Expected, story: Mapping[str, Any]) -> list[str]:
    """Promise 3: every accepted turn ends, and as it should."""
    found = []
    failed = []
    for turn, fields in state.turns.items():
        status = fields.get("status", "nothing")
        if status == "failed":
            code = json.loads(fields.get("outcome", "{}")).get("error", {}).get("code")
            failed.append(f"{fields['agent']} failed: {code}")
        elif status == "merged":
            if fields.get("into") not in state.turns:
                found.append(f"{turn} joined a turn that is gone")
        elif status not in ENDED or (status == "cancelled" and not _may_be(fields, expected)):
            found.append(f"{turn} of {fields.get('agent')} is {status}")
    if len(failed) > expected.may_fail:
        found += failed
    for conversation, turn in expected.accepted:
        if turn not in state.turns:
            found.append(f"{turn} in {conversation} is gone")
    for turn, outcome in story.get("outcomes", {}).items():
        into = state.turns.get(turn, {}).get("into", turn)
        status = state.turns.get(into, {}).get("status", "gone")
        if outcome.partition(" ")[0] != status:
            found.append(f"the caller was told that {turn} is {outcome}, and it is {status}")
    return found + [f"the caller gave up: {what}" for what in story.get("gave_up", ())]


def _may_be(fields: Mapping[str, str], expected: Expected) -> bool:
    """Whether a turn may be cancelled: somebody did, or it worked for one that failed."""
    return expected.cancelled or ("parent" in fields and expected.may_fail > 0)


def _left_over(state: State) -> list[str]:
    """Nothing is leaked: no lease, nothing due, no key that nobody will delete."""
    found = [f"due for ever: {members}" for members in state.due.values() if members]
    found += [f"never told: {members}" for members in state.untold.values() if members]
    for name, ttl in state.keys.items():
        if name.endswith((":lease", ":inbox")):
            found.append(f"left over: {name}")
        elif ":t:" in name and ttl < 0:
            found.append(f"without an expiry: {name}")
    return found


def _repeated(turn: str, entries: Sequence[Any], runs: Sequence[dict[str, Any]]) -> list[str]:
    found = []
    began_behind: list[int] = []
    results: dict[str, int] = {}
    recorded = 0
    for _, fields in entries:
        if fields["type"] == "started":
            began_behind.append(recorded)
        elif fields["type"] == "step":
            data = json.loads(fields["data"])
            if data["kind"] == "tool":
                results[data["calls"][0]] = recorded
            recorded += 1
    asked = Counter(run["step"] for run in runs if run["kind"] == "model")
    for step, count in asked.items():
        if count > sum(behind <= step for behind in began_behind):
            found.append(f"model step {step} of {turn} ran {count} times")
    made = Counter((run["kind"], run["call"]) for run in runs if "call" in run)
    for (kind, call), count in made.items():
        if kind in ONCE and count > 1:
            found.append(f"{kind} {call} of {turn} was made {count} times")
    for run in runs:
        behind = began_behind[run["attempt"] - 1] if "attempt" in run else 0
        if behind > results.get(run.get("call", ""), behind):
            found.append(f"{run['kind']} of {turn} ran again behind its recorded result")
    return found
