"""`export`, `import` and `forget`, on a real Redis, and killed in the middle."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from agentapi.conversation.messages import UserMessage
from agentapi.redis.keys import conversation_keys
from agentapi.stores import OpenConversation
from orchestrator import AsyncOrchestrator, Orchestrator
from orchestrator.cli.main import app
from tests.conformance.stores import Bench, on_redis
from tests.faults import until

LONG = "a long one"
COUNT = 1000

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    bench = on_redis(redis_url)
    for number in range(3):
        turn_id = bench.enqueue(f"c:{number}", "hi", user_id=f"u:{number % 2}")
        bench.complete(bench.claim(turn_id, f"c:{number}").lease)
    bench.store.conversations.open(
        OpenConversation(
            conversation_id=LONG,
            tenant_id="acme",
            create=True,
            operation="op",
            messages=[UserMessage(content=f"message {number}") for number in range(COUNT)],
        )
    )
    yield bench
    bench.store.close()


@pytest.fixture
def command(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.setenv("AGENTAPI_REDIS_URL", redis_url)

    def run(*arguments: str, said: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agentapi", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said)))
        with pytest.raises(SystemExit) as ended:
            app()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


def test_a_backup_and_its_restoration(command: Command, bench: Bench, tmp_path: Path) -> None:
    code, out, _ = command("export", "--all", "--dry-run", "--json")
    assert (code, json.loads(out)) == (
        0,
        {"conversations": 4, "messages": COUNT + 6, "dry_run": True},
    )
    file = tmp_path / "backup.jsonl"
    code, out, _ = command("export", "--all", "--output", str(file), "--json")
    assert (code, json.loads(out)["conversations"]) == (0, 4)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]
    code, out, err = command("export", "c:0")
    assert (code, err) == (0, "1 conversation, 2 messages exported\n")
    assert len(out.splitlines()) == 6

    code, out, err = command("import", str(file))
    assert (code, out) == (7, "0 conversations, 0 messages imported\n")
    assert "c:0: it already exists" in err
    history = bench.store.history(LONG)
    bench.store.conversations.drop(LONG, "acme", "op")
    code, out, _ = command("import", str(file), "--json")
    found = json.loads(out)
    assert (code, found["imported"], found["messages"]) == (7, 1, COUNT)
    assert sorted(found["refused"]) == ["c:0", "c:1", "c:2"]
    assert bench.store.history(LONG) == history
    code, out, _ = command("import", str(file), "--replace", "--yes", "--json")
    found = json.loads(out)
    assert (code, found["imported"], found["unchanged"], found["complete"]) == (0, 3, 1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("export",), 2, "--all"),
        (("export", "c", "--all"), 2, "one of"),
        (("export", "nobody", "--output", "/dev/null/no"), 2, "cannot write"),
        (("export", "nobody", "--dry-run"), 3, "does not exist"),
        (("import", "/nowhere.jsonl"), 2, "cannot read"),
        (("import", "-", "--replace"), 2, "--yes"),
        (("import", "-"), 7, "cut off"),
        (("forget", "nobody"), 2, "--yes"),
    ],
)
def test_calls_that_cannot_work(
    command: Command, arguments: tuple[str, ...], code: int, says: str
) -> None:
    found, _, err = command(*arguments)
    assert found == code, err
    assert says in err


def test_a_person_is_forgotten(command: Command, bench: Bench) -> None:
    counts = {"user_id": "u:0", "conversations": 2, "turns": 2, "messages": 4, "left": []}
    code, out, _ = command("forget", "u:0", "--dry-run", "--json")
    assert (code, json.loads(out)) == (0, {**counts, "dry_run": True})
    assert len(bench.store.history("c:0")) == 2
    code, out, _ = command("forget", "u:0", "--yes")
    assert (code, out) == (0, "2 conversations, 4 messages, 2 turns deleted\n")
    assert [len(bench.store.history(f"c:{number}")) for number in range(3)] == [0, 2, 0]
    running = bench.enqueue("c:0", "hi", user_id="u:0")
    bench.claim(running, "c:0")
    with Orchestrator(bench.settings) as orchestrator:
        result = orchestrator.forget_user("u:0", timeout=0)
    assert list(result.left) == [running]


def test_nothing_of_a_forgotten_person_stays_in_redis(bench: Bench, redis_url: str) -> None:
    failed = bench.enqueue("c:0", "secret words", user_id="u:0", tenant_id=None)
    bench.store.cancel(failed)
    bench.enqueue("c:1", "secret words too", user_id="u:0")
    with Orchestrator(bench.settings) as orchestrator:
        # The turn that waits is cancelled and deleted at once: no worker has it.
        assert not orchestrator.forget_user("u:0", timeout=60).left
    with redis.Redis.from_url(redis_url) as client:
        stored = b" ".join(
            key + (client.dump(key) or b"") for key in client.scan_iter("agentapi:{*}*")
        )
    for word in (b"secret", b"u:0", b"c:0", failed.encode()):
        assert word not in stored, word


def test_an_import_that_is_killed_leaves_nothing_half(bench: Bench, redis_url: str) -> None:
    with Orchestrator(bench.settings) as orchestrator:
        lines = list(orchestrator.export_conversations(LONG))
    history = bench.store.history(LONG)
    bench.store.conversations.drop(LONG, "acme", "op")
    child = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "import", "-"],
        stdin=subprocess.PIPE,
        env={**os.environ, "AGENTAPI_REDIS_URL": redis_url},
    )
    with redis.Redis.from_url(redis_url) as client:
        assert child.stdin is not None
        child.stdin.write(b"".join(lines[: COUNT // 2]))
        child.stdin.flush()
        staged = f"{conversation_keys(LONG).messages}:import:*"
        until(lambda: bool(client.keys(staged)))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        assert bench.store.history(LONG) == []
        assert all(client.pttl(key) > 0 for key in client.keys(staged))
    with Orchestrator(bench.settings) as orchestrator:
        assert orchestrator.import_conversations(lines).imported == 1
    assert bench.store.history(LONG) == history


async def test_the_same_for_asyncio(bench: Bench) -> None:
    async with AsyncOrchestrator(bench.settings) as orchestrator:
        lines = [line async for line in orchestrator.export_conversations(tenant_id="acme")]
        assert (await orchestrator.forget_user("u:1", dry_run=True)).conversations == 1
        result = await orchestrator.import_conversations(lines, replace=True)
    assert (result.imported, result.messages, result.complete) == (1, COUNT, True)
