"""What each command prints, in this process, with a worker in another."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import watching
from orchestrator.cli.console import console, real
from orchestrator.cli.main import app
from orchestrator.stack import Stack
from orchestrator.stack.processes import free_port
from tests.faults import until


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON objects of a command that worked, and that printed nothing else."""
        assert (self.code, self.err) == (0, "")
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The JSON object of a command that failed, and that printed nothing else."""
        assert self.code
        found = json.loads(self.err)["error"]
        assert found["exit_code"] == self.code
        return dict(found)


Run = Callable[..., Done]

TIME = r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d"
"""With the date when it was yesterday: midnight may pass during a test."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    agents = ("examples.agents",)
    with Stack(folder, agents=agents, workers=1, flower=False, unknown_agent_wait=0.5) as running:
        yield running


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command; `said` is its standard input."""
    monkeypatch.setenv("COLUMNS", "200")
    before = logging.root.handlers[:]

    def command(*arguments: str, said: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["agentapi", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said.encode())))
        with pytest.raises(SystemExit) as ended:
            app()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)

    yield command
    # With --json commands log as JSON.
    logging.root.handlers[:] = before


@pytest.fixture
def command(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command against the stack."""
    monkeypatch.setenv("AGENTAPI_REDIS_URL", stack.redis_url)
    return run


def test_a_history(command: Run) -> None:
    ask = ("enqueue", "support", '/lookup_order {"order_id": "7"}', "--conversation", "c:1")
    assert command(*ask, "--wait").out == "lookup_order: order 7 is shipped on Monday\n"
    shown = command("history", "c:1").out
    assert 'lookup_order({"order_id": "7"})' in shown
    messages = command("history", "c:1", "--json").lines
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert len(command("history", "c:1", "--last", "1", "--json").lines) == 1
    turn_id = messages[0]["turn_id"]
    [turn] = command("turn", turn_id, "--json").lines
    assert (turn["status"], turn["steps"], turn["agent"]) == ("completed", 3, "support")
    assert [event["type"] for event in turn["events"]][-1] == "completed"
    assert "completed" in command("turn", turn_id).out
    assert command("cancel", turn_id).out == "ended\n"
    followed = command("follow", turn_id)
    assert followed.out == "lookup_order: order 7 is shipped on Monday\n"
    assert "(calls lookup_order)" in followed.err


def test_a_message_with_everything(command: Run, tmp_path: Path) -> None:
    (tmp_path / "question.txt").write_text("What is this?\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    ask = (
        *("enqueue", "plan", "--file", str(tmp_path / "question.txt"), "--conversation", "all:1"),
        *("--attach", str(tmp_path / "picture.png"), "--attach", "https://example.com/plan.pdf"),
        *("--context", '{"name": "Ada"}'),
        *("--metadata", '{"source": "test"}', "--user", "u1", "--tenant", "t1"),
        *("--idempotency-key", "k1", "--deadline", "300", "--on-busy", "enqueue"),
        *("--on-abort", "keep", "--json"),
    )
    [accepted] = command(*ask).lines
    assert accepted["conversation_id"] == "all:1"
    [result] = command(*ask, "--wait").lines
    assert result["turn_id"] == accepted["turn_id"]
    assert result["text"].startswith("You said: What is this?")
    assert "[image image/png]" in result["text"]
    [turn] = command("turn", result["turn_id"], "--json").lines
    assert turn["metadata"] == {"source": "test"}
    assert turn["context"] == {"name": "Ada"}
    assert (turn["user_id"], turn["tenant_id"], turn["on_abort"]) == ("u1", "t1", "keep")
    assert turn["deadline_at"] > turn["created_at"]
    assert [each["kind"] for each in turn["attachments"]] == ["image", "file"]
    piped = command("enqueue", "plan", "--file", "-", "--stream", said="from a pipe")
    assert piped.out == "You said: from a pipe\n"


def test_a_stream_for_programs(command: Run) -> None:
    ask = ("enqueue", "plan", "hello", "--stream", "--json")
    lines = command(*ask).lines
    assert lines[0]["type"] == "accepted"
    assert [line["number"] for line in lines[1:-1]] == list(range(len(lines) - 2))
    pieces = [line["text"] for line in lines if line["type"] == "delta"]
    assert "".join(pieces) == lines[-1]["text"] == "You said: hello"
    turn_id = lines[0]["turn_id"]
    again = command("follow", turn_id, "--after", "0", "--json").lines
    assert again == lines[2:]


def until_asked(command: Run, turn_id: str) -> None:
    """Wait until a turn waits for a decision."""
    until(lambda: command("pending", turn_id, "--json").out)


def test_what_waits_is_listed_and_decided(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '/refund {"order_id": "7", "amount": 80}'
    ask = ("enqueue", "support", text, "--idempotency-key", "refund", "--json")
    [accepted] = command(*ask).lines
    turn_id = accepted["turn_id"]
    until_asked(command, turn_id)
    waited = command(*ask, "--wait", "--timeout", "0.5")
    assert (waited.code, waited.out) == (5, "")
    error = waited.error
    assert (error["code"], error["exit_code"]) == ("approval_required", 5)
    assert error["turn_id"] == turn_id
    [call] = command("pending", turn_id, "--json").lines
    assert call["arguments"] == {"order_id": "7", "amount": 80}
    [listed] = command("approvals", "--agent", "support", "--json").lines
    assert (listed["turn_id"], listed["call_id"]) == (turn_id, call["call_id"])
    for listing in (("pending", turn_id), ("approvals",)):
        shown = command(*listing).out
        assert turn_id in shown
        assert '{"order_id": "7", "amount": 80}' in shown
    monkeypatch.setattr(real(console), "width", 40)
    for listing in (("pending", turn_id), ("approvals",)):
        blocks = command(*listing).out.splitlines()
        assert f"turn  {turn_id}" in blocks
        assert f"call  {call['call_id']}" in blocks
        assert 'refund({"order_id": "7", "amount": 80})' in blocks
        assert f"agentapi approve {turn_id} {call['call_id']}" in blocks
    told = command("follow", turn_id, "--timeout", "3")
    assert told.code == 5
    assert told.err.count("waits for approval: agentapi pending") == 1
    assert told.err.endswith("no decision within the timeout; the turn is still waiting\n")
    decide = ("approve", turn_id, call["call_id"], "--by", "ann", "--json")
    wrong = command(*decide, "--arguments", '{"amount": "much"}')
    assert (wrong.code, wrong.error["code"]) == (2, "invalid_input")
    edited = ("--arguments", '{"order_id": "7", "amount": 8}')
    [verdict] = command(*decide, *edited).lines
    assert verdict["verdict"] == "edited"
    followed = command("follow", turn_id)
    assert followed.out.endswith("8.00 euros of order 7 were refunded\n")
    other = command("reject", turn_id, call["call_id"])
    assert other.code == 7
    assert command("approvals", "--json").lines == []
    assert command("approvals").err == "no calls are waiting for a decision\n"


def test_lists_and_changes_of_many_turns(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ids: list[str] = []
    for number in range(3):
        text = '/refund {"order_id": "7", "amount": 900}'
        ask = ("enqueue", "support", text, "--conversation", f"many:{number}", "--user", "many")
        [accepted] = command(*ask, "--json").lines
        ids.insert(0, accepted["turn_id"])
    until(lambda: len(statuses(command, "parked")) == 3)
    assert statuses(command, "parked") == ids
    shown = command("turns", "--user", "many", "--limit", "2")
    assert all(turn_id in shown.out for turn_id in ids[:2])
    assert ids[2] not in shown.out
    assert "only the newest 2 are listed; --limit 0 lists all" in shown.err
    listed = command("conversations", "--user", "many", "--busy", "--json").lines
    assert {each["conversation_id"] for each in listed} == {"many:0", "many:1", "many:2"}
    assert "many:1" in command("conversations", "--active-since", "1h").out
    with monkeypatch.context() as narrow:
        narrow.setattr(real(console), "width", 60)
        shown = command("turns", "--user", "many")
        for number, turn_id in enumerate(reversed(ids)):
            assert re.search(f"^{turn_id}  parked +{TIME}$", shown.out, re.MULTILINE)
            assert f"  agent support  conversation many:{number}\n" in shown.out
        shown = command("conversations", "--user", "many")
        assert re.search(f"^many:1  {TIME}$", shown.out, re.MULTILINE)
    many = ("cancel", "--user", "many")
    unsure = command(*many)
    assert (unsure.code, unsure.err) == (2, "no terminal to ask for confirmation: add --yes\n")
    wrong = command("retry", "--user", "many", "--status", "completed", "--yes")
    assert "only failed turns can be retried; the filter asks for completed turns" in wrong.err
    wrong = command(*many, "--status", "completed", "--yes")
    assert "only queued, running or parked turns can be cancelled; " in wrong.err
    [dry] = command(*many, "--dry-run", "--json").lines
    assert (dry["turn_ids"], dry["dry_run"]) == (ids, True)
    assert statuses(command, "parked") == ids
    done = command(*many, "--yes")
    assert (done.code, done.out.split()) == (0, ids)
    assert done.err == "3 turns cancelled\n"
    assert statuses(command, "cancelled") == ids
    # Cancelled turns cannot be retried: none matches.
    [none] = command("retry", "--user", "many", "--yes", "--json").lines
    assert none == {"turn_ids": [], "refused": {}, "dry_run": False}
    ended = command("ends", "--user", "many", "--json").lines
    assert [end["status"] for end in ended] == ["cancelled"] * 3
    behind = ("ends", "--user", "many", "--after", ended[1]["position"])
    assert command(*behind).out.count("  cancelled  support  many:") == 1


def statuses(command: Run, status: str) -> list[str]:
    listed = command("turns", "--user", "many", "--status", status, "--json")
    return [turn["turn_id"] for turn in listed.lines]


def test_failed_turns_are_retried_together(command: Run) -> None:
    failed: list[str] = []
    for _ in range(2):
        ask = ("enqueue", "nonesuch", "hello", "--wait", "--user", "lost", "--json")
        error = command(*ask).error
        assert (error["exit_code"], error["error_code"]) == (3, "unknown_agent")
        assert "agentapi.chain" not in error["message"]
        failed.insert(0, error["turn_id"])
    again = ("retry", "--status", "failed", "--agent", "nonesuch", "--error-code", "unknown_agent")
    dry = command(*again, "--dry-run")
    assert dry.out.split() == failed
    assert dry.err == "2 turns would be retried\n"
    [done] = command(*again, "--limit", "1", "--yes", "--json").lines
    assert done["turn_ids"] == failed[:1]
    events = command("follow", failed[0], "--json")
    assert '"type": "retried"' in events.out
    [queued] = command("retry", failed[1], "--json").lines
    assert queued == {"turn_id": failed[1], "outcome": "queued"}


def answered(command: Run, *arguments: str) -> Done:
    """Run a command until the worker has answered it in time, which a busy machine may delay."""
    done: list[Done] = []

    def is_done() -> bool:
        done.append(command(*arguments))
        return done[-1].code == 0

    until(is_done)
    return done[-1]


def test_other_commands_for_programs(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [each["agent"] for each in answered(command, "agents", "--json").lines]
    assert names == sorted(names)
    assert {"support", "plan"} <= set(names)
    assert not [name for name in names if name.startswith("agentapi.")]
    assert "worker1@" in answered(command, "agents").out
    settings = {each["variable"]: each["value"] for each in command("settings", "--json").lines}
    assert settings["AGENTAPI_LEASE_TTL"] == "10.0"
    [examined] = answered(command, "doctor", "--json").lines
    assert examined["ok"]
    assert examined["findings"]
    [version] = command("version", "--json").lines
    assert command("--version").out == f"{version['version']}\n"
    [written] = command("init", str(tmp_path / "new"), "--json").lines
    assert "agents.py" in written["files"]
    [key] = command("keys", "create", "acme", "--label", "shop", "--json").lines
    assert key["secret"].startswith("ak-")
    [listed] = command("keys", "list", "--json").lines
    assert (listed["tenant"], listed["revoked"]) == ("acme", None)
    assert "secret" not in listed
    [revoked] = command("keys", "revoke", key["key_id"], "--json").lines
    assert revoked["revoked"]
    ask = ("enqueue", "plan", "hello", "--conversation", "reset:1", "--wait", "--json")
    assert command(*ask).lines[0]["text"] == "You said: hello"
    assert command("reset", "reset:1").code == 2, "nobody can be asked"
    [reset] = command("reset", "reset:1", "--yes", "--json").lines
    assert reset == {"conversation_id": "reset:1", "deleted": 2}


NO_TURN = "001-00000000000000000000000000000000"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("turn", "nonsense"), 2, "invalid_input"),
        (("turn", NO_TURN), 3, "turn_not_found"),
        (("follow", NO_TURN), 3, "turn_not_found"),
        (("cancel", NO_TURN), 3, "turn_not_found"),
        (("retry", NO_TURN), 3, "turn_not_found"),
        (("pending", NO_TURN), 3, "turn_not_found"),
        (("approve", NO_TURN, "c1"), 3, "turn_not_found"),
        (("history", "nonesuch"), 3, "conversation_not_found"),
        (("reset", "nonesuch", "--yes"), 3, "conversation_not_found"),
        (("keys", "revoke", "key_none"), 3, "key_not_found"),
        (("history", "x" * 600), 2, "invalid_conversation_id"),
        (("enqueue", "support"), 2, "usage"),
        (("enqueue", "support", "hi", "--file", "-"), 2, "usage"),
        (("enqueue", "support", "--file", "/nonesuch"), 2, "usage"),
        (("enqueue", "support", "hi", "--attach", "/nonesuch"), 2, "usage"),
        (("enqueue", "support", "hi", "--metadata", "[1]"), 2, "usage"),
        (("enqueue", "support", "hi", "--metadata", "{"), 2, "usage"),
        (("enqueue", "support", "hi", "--deadline", "-1"), 2, "invalid_input"),
        (("enqueue", "support", "hi", "--on-busy", "panic"), 2, "usage"),
        (("enqueue", "support", "hi", "--nonesuch"), 2, "usage"),
        (("enqueue", "no agent", "hi"), 3, "unknown_agent"),
        (("turns", "--status", "lost"), 2, "invalid_input"),
        (("turns", "--since", "yesterday"), 2, "usage"),
        (("retry",), 2, "usage"),
        (("retry", NO_TURN, "--agent", "a"), 2, "usage"),
        (("cancel", NO_TURN, "--dry-run"), 2, "usage"),
        (("ends", "--since", "1h", "--after", "start"), 2, "usage"),
        (("nonesuch",), 2, "usage"),
    ],
)
def test_errors(command: Run, arguments: tuple[str, ...], code: int, error: str) -> None:
    shown = command(*arguments)
    assert (shown.code, shown.out) == (code, "")
    assert "Traceback" not in shown.err
    told = command(*arguments, "--json")
    assert (told.code, told.out, told.error["code"]) == (code, "", error)
    assert told.error["message"]


def test_a_conflict_and_a_timeout(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ("enqueue", "support", '/refund {"order_id": "7", "amount": 70}', "--json")
    busy = ("--conversation", "busy:1")
    [accepted] = command(*ask, *busy).lines
    turn_id = accepted["turn_id"]
    until_asked(command, turn_id)
    refused = command(*ask, *busy, "--on-busy", "reject")
    assert (refused.code, refused.error["code"]) == (7, "conversation_busy")
    behind = command(*ask, *busy, "--wait", "--timeout", "0.2")
    assert (behind.code, behind.error["code"]) == (6, "turn_timeout")
    monkeypatch.setattr(watching, "_PATIENCE", 0.1)
    told = command(*ask[:-1], *busy, "--wait", "--timeout", "2")
    assert (
        f"(not started yet: turn {turn_id} of the conversation is first in line: it waits for a "
        f"decision: agentapi pending {turn_id})" in told.err
    )
    monkeypatch.setenv("AGENTAPI_LIST_LIMIT", "0")
    told = command(*ask[:-1], *busy, "--wait", "--timeout", "2")
    assert "(not started yet: an earlier turn of the conversation has not ended" in told.err
    monkeypatch.delenv("AGENTAPI_LIST_LIMIT")
    [cancelled] = command("cancel", turn_id, "--json").lines
    assert cancelled["outcome"] == "cancelled"
    followed = command("follow", turn_id, "--json")
    assert (followed.code, json.loads(followed.err)["error"]["code"]) == (1, "turn_cancelled")
    assert command("retry", turn_id).code == 7
    assert command("cancel", "--conversation", "busy:1", "--yes").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("turns",),
        ("turn", NO_TURN),
        ("conversations",),
        ("approvals",),
        ("ends",),
        ("history", "c"),
        ("agents",),
        ("keys", "list"),
        ("chat", "support"),
        ("enqueue", "support", "hi"),
    ],
)
def test_without_servers(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("AGENTAPI_REDIS_URL", f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    monkeypatch.setenv("AGENTAPI_REDIS_TIMEOUT", "0.5")
    done = run(*arguments, "--json", said="hello\n")
    assert done.code == 4
    assert done.error["code"] in ("store_unavailable", "broker_unavailable")
    assert "hunter2" not in done.out + done.err
    if arguments != ("chat", "support"):
        assert done.out == ""
