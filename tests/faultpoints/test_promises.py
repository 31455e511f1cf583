"""The witness finds each kind of harm when it is there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.chaos.checker import conversation_key, turn_key
from tests.faultpoints.archive import ArchiveFile, aside_key
from tests.faultpoints.promises import Expected, Witness

C = "r1:main"
FIRST, SECOND, THIRD = "042-" + "1" * 32, "042-" + "2" * 32, "042-" + "3" * 32
MOVED = conversation_key(C, "").rpartition(":c:")[0] + ":list:moved:completed"
TABLES = (
    "archived_conversations (copy_id, conversation_id, version)",
    "archived_messages (copy_id, position, body)",
    "archived_turns (turn_id, version, fields)",
)
DUE = conversation_key(C, "").rpartition(":c:")[0] + ":due"


class Scene:
    """Two turns that went well, to be spoiled."""

    def __init__(self, url: str, folder: Path) -> None:
        self.client: Any = redis.Redis.from_url(url, decode_responses=True)
        self.url = url
        self.ledger = folder / "ledger.jsonl"
        self.archive = folder / "archive.db"
        with closing(sqlite3.connect(self.archive)) as archive:
            for table in TABLES:
                archive.execute(f"CREATE TABLE {table}")
        self.history = [*self.turn(FIRST), *self.turn(SECOND)]
        self.accepted = [(C, FIRST), (C, SECOND)]
        self.runs: list[dict[str, Any]] = [
            {"kind": "model", "turn": FIRST, "step": 0},
            {"kind": "charge", "turn": FIRST, "call": "c1", "attempt": 1},
            {"kind": "model", "turn": FIRST, "step": 2},
            *({"kind": "told", "turn": turn, "end": f"{turn}:4"} for turn in (FIRST, SECOND)),
        ]
        self.steps = [
            ("started", {}),
            ("step", {"kind": "model", "calls": ["c1"]}),
            ("step", {"kind": "tool", "calls": ["c1"]}),
            ("delta", {"text": "yo"}),
            ("completed", {}),
        ]
        self.away = ""
        self.fields = {
            "conversation": C,
            "status": "completed",
            "stream": "1",
            "agent": "lead",
            "outcome": json.dumps({"messages": [{"content": "yo"}]}),
        }
        self.story: dict[str, Any] = {
            "events": {FIRST: [[0, "started"], [1, "completed"]]},
            "outcomes": {FIRST: "completed"},
        }

    def put(self, table: str, *values: Any) -> None:
        """Put a row into the archive."""
        with closing(sqlite3.connect(self.archive)) as archive:
            archive.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", values)
            archive.commit()

    def turn(self, turn_id: str) -> list[dict[str, Any]]:
        return [
            {"role": "user", "content": "hi", "turn_id": turn_id},
            {"role": "assistant", "tool_calls": [{"id": "c1"}], "content": "", "turn_id": turn_id},
            {"role": "tool", "call_id": "c1", "content": "done", "turn_id": turn_id},
            {"role": "assistant", "content": "yo", "turn_id": turn_id},
        ]

    def broken(self) -> list[str]:
        for message in self.history:
            self.client.rpush(conversation_key(C, "messages"), json.dumps(message))
        for turn_id in (FIRST, SECOND):
            key = turn_key(turn_id)
            events = aside_key(turn_id) if turn_id == self.away else f"{key}:events"
            if turn_id != self.away:
                self.client.hset(key, mapping=self.fields)
            for number, (kind, data) in enumerate(self.steps):
                event: Any = {"type": kind, "data": json.dumps(data)}
                self.client.xadd(events, event, id=f"{number + 1}-0")
                self.client.expire(events, 60)
            self.client.expire(key, 60)
        self.ledger.write_text("".join(json.dumps(run) + "\n" for run in self.runs))
        witness = Witness(self.url, self.ledger, ArchiveFile(self.archive))
        try:
            return witness.broken(witness.look(), Expected(accepted=self.accepted), self.story)
        finally:
            witness.close()
            self.client.close()


def lose(scene: Scene) -> None:
    scene.accepted.append((C, THIRD))


def disorder(scene: Scene) -> None:
    scene.history = [*scene.turn(SECOND), *scene.turn(FIRST)]


def halve(scene: Scene) -> None:
    scene.history.pop()


def leave_a_call_open(scene: Scene) -> None:
    del scene.history[2]


def fail(scene: Scene) -> None:
    scene.fields["status"] = "failed"


def never_end(scene: Scene) -> None:
    scene.fields["status"] = "running"


def tell_the_caller_otherwise(scene: Scene) -> None:
    scene.story["outcomes"] = {FIRST: "failed internal"}


def lose_an_event(scene: Scene) -> None:
    scene.story["events"] = {FIRST: [[0, "started"], [2, "completed"]]}


def end_twice(scene: Scene) -> None:
    scene.steps.append(("completed", {}))


def show_other_text(scene: Scene) -> None:
    scene.steps.insert(3, ("delta", {"text": "y"}))


def leave_something_due(scene: Scene) -> None:
    scene.client.zadd(DUE, {C: 1})


def leave_a_lease(scene: Scene) -> None:
    scene.client.hset(conversation_key(C, "lease"), "turn", FIRST)


def leave_a_journal(scene: Scene) -> None:
    scene.client.rpush(f"{turn_key(FIRST)}:journal", "{}")


def ask_again(scene: Scene) -> None:
    scene.runs.append({"kind": "model", "turn": FIRST, "step": 0})


def charge_twice(scene: Scene) -> None:
    scene.runs.append({"kind": "charge", "turn": FIRST, "call": "c1", "attempt": 1})


def tell_no_hook(scene: Scene) -> None:
    scene.runs = [run for run in scene.runs if run["kind"] != "told"]


def leave_an_end_untold(scene: Scene) -> None:
    scene.client.zadd(DUE.replace(":due", ":untold"), {f"{FIRST}:4:lead": 1})


def join_twice(scene: Scene) -> None:
    steered(scene)
    scene.history.insert(3, scene.history[3])


def join_one_that_is_gone(scene: Scene) -> None:
    steered(scene)
    scene.client.hset(turn_key(THIRD), "into", "042-" + "4" * 32)


def join_and_run(scene: Scene) -> None:
    steered(scene)
    key = f"{turn_key(THIRD)}:events"
    scene.client.xadd(key, {"type": "started", "data": "{}"}, id="2-0")


def leave_a_copy(scene: Scene) -> None:
    scene.put("archived_conversations", 1, C, "a" * 32)


def keep_what_has_left(scene: Scene) -> None:
    scene.client.hset(conversation_key(C, "meta"), "archived", f"{'a' * 32} 8")


def move_a_turn(scene: Scene) -> None:
    """The first turn is in the archive, and the second has read it."""
    scene.away = FIRST
    scene.put("archived_turns", FIRST, 1, json.dumps(scene.fields))
    scene.client.zadd(MOVED, {FIRST: 1})
    scene.runs.append({"kind": "recalled", "turn": SECOND, "of": FIRST, "text": "yo"})


def move_a_turn_twice(scene: Scene) -> None:
    move_a_turn(scene)
    scene.put("archived_turns", FIRST, 2, json.dumps(scene.fields))


def keep_a_turn_that_has_moved(scene: Scene) -> None:
    move_a_turn(scene)
    scene.away = ""


def lose_the_copy_of_a_turn(scene: Scene) -> None:
    scene.away = FIRST
    scene.client.zadd(MOVED, {FIRST: 1})


def leave_a_copy_of_a_turn(scene: Scene) -> None:
    scene.put("archived_turns", FIRST, 1, json.dumps(scene.fields))


def copy_another_end(scene: Scene) -> None:
    move_a_turn(scene)
    scene.put("archived_turns", FIRST, 2, json.dumps({**scene.fields, "status": "cancelled"}))


def read_another_reply(scene: Scene) -> None:
    move_a_turn(scene)
    scene.runs[-1]["text"] = "no"


def delete_what_is_not_too_much(scene: Scene) -> None:
    scene.away = FIRST
    scene.story["expelled"] = [FIRST]


def delete_half(scene: Scene) -> None:
    scene.accepted.append((C, THIRD))
    scene.story["expelled"] = [FIRST]


def look_again(scene: Scene) -> None:
    scene.steps.insert(3, ("started", {}))
    scene.runs.append({"kind": "look", "turn": FIRST, "call": "c1", "attempt": 2})


def steered(scene: Scene) -> None:
    """A third message joins the first turn."""
    key = turn_key(THIRD)
    scene.client.hset(key, mapping={"status": "merged", "into": FIRST})
    scene.client.xadd(f"{key}:events", {"type": "joined", "data": "{}"}, id="1-0")
    scene.client.expire(f"{key}:events", 60)
    scene.client.expire(key, 60)
    scene.accepted.append((C, THIRD))
    # The caller may have repeated it, and was told of the turn that it had joined.
    scene.accepted.append((C, FIRST))
    scene.story["outcomes"][THIRD] = "completed"
    scene.history.insert(3, {"role": "user", "content": "go on", "turn_id": FIRST})


def test_all_is_well(redis_url: str, tmp_path: Path) -> None:
    assert Scene(redis_url, tmp_path).broken() == []


def test_all_is_well_with_a_turn_that_was_steered(redis_url: str, tmp_path: Path) -> None:
    scene = Scene(redis_url, tmp_path)
    steered(scene)
    assert scene.broken() == []


def test_all_is_well_with_a_turn_that_has_moved(redis_url: str, tmp_path: Path) -> None:
    scene = Scene(redis_url, tmp_path)
    move_a_turn(scene)
    assert scene.broken() == []


def test_all_is_well_with_a_turn_that_was_too_much(redis_url: str, tmp_path: Path) -> None:
    scene = Scene(redis_url, tmp_path)
    steered(scene)
    scene.away = FIRST
    scene.story["expelled"] = [FIRST]
    assert scene.broken() == []


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lose, "is gone"),
        (disorder, "has turns"),
        (halve, "half a turn"),
        (leave_a_call_open, "calls and results differ"),
        (fail, "lead failed"),
        (never_end, "is running"),
        (tell_the_caller_otherwise, "the caller was told"),
        (lose_an_event, "the caller got events"),
        (end_twice, "end more than once"),
        (show_other_text, "showed 'yyo'"),
        (leave_something_due, "due for ever"),
        (leave_a_lease, "left over"),
        (leave_a_journal, "without an expiry"),
        (ask_again, "ran 2 times"),
        (charge_twice, "was made 2 times"),
        (tell_no_hook, "no hook was told"),
        (leave_an_end_untold, "never told"),
        (join_twice, "has turns"),
        (join_one_that_is_gone, "joined a turn that is gone"),
        (join_and_run, "joined one, with"),
        (leave_a_copy, "that nothing names"),
        (keep_what_has_left, "in the archive and in Redis"),
        (move_a_turn_twice, "2 copies of"),
        (keep_a_turn_that_has_moved, f"{FIRST} is in the archive and in Redis"),
        (lose_the_copy_of_a_turn, "0 copies of"),
        (lose_the_copy_of_a_turn, "is gone"),
        (leave_a_copy_of_a_turn, "1 copies of"),
        (copy_another_end, "is cancelled"),
        (read_another_reply, "read 'no'"),
        (delete_what_is_not_too_much, "more turns were deleted"),
        (delete_half, "was deleted, and is there"),
        (look_again, "ran again behind its recorded result"),
    ],
)
def test_harm_is_found(
    redis_url: str, tmp_path: Path, spoil: Callable[[Scene], None], found: str
) -> None:
    scene = Scene(redis_url, tmp_path)
    spoil(scene)
    assert any(found in what for what in scene.broken())
