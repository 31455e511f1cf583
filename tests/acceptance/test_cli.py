"""The `agentapi` command as a user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO

import httpx2
import pytest

from agentapi import load_settings
from agentapi.errors import BrokerUnavailable
from orchestrator import Orchestrator
from orchestrator.stack import Stack
from orchestrator.stack.processes import free_port
from tests.acceptance.terminal import CTRL_C, Terminal
from tests.faults import until


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    agents = ("examples.agents",)
    with Stack(folder, agents=agents, workers=1, flower=False, unknown_agent_wait=0.5) as running:
        yield running


def agentapi(*arguments: str, redis_url: str, said: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", *arguments],
        env={**os.environ, "AGENTAPI_REDIS_URL": redis_url, "COLUMNS": "200"},
        input=said,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_a_conversation(stack: Stack) -> None:
    url = stack.redis_url
    done = agentapi("enqueue", "plan", "hello", "--conversation", "c:1", "--wait", redis_url=url)
    assert (done.returncode, done.stdout) == (0, "You said: hello\n")
    assert re.search("^[0-9a-f-]+: 1 step, [0-9]+ tokens$", done.stderr, re.M)
    talk = agentapi(
        *("chat", "plan", "--conversation", "c:1"),
        redis_url=url,
        said="What did I say?\n/history\n/reset\n/history\n/quit\n",
    )
    assert talk.returncode == 0
    assert "You said 1 thing: hello" in talk.stdout
    assert "4 messages deleted" in talk.stderr
    assert "no messages" in talk.stderr
    agentapi("enqueue", "support", '/lookup_order {"order_id": "7"}', "--conversation", "c:1",
             "--wait", redis_url=url)  # fmt: skip
    shown = agentapi("history", "c:1", redis_url=url).stdout
    assert 'lookup_order({"order_id": "7"})' in shown


EACH = """
import json
import sys
from orchestrator.cli.main import app

def run(arguments):
    sys.argv = ["agentapi", *arguments]
    try:
        app()
    except SystemExit as ended:
        return ended.code

for arguments in json.loads(sys.argv[1]):
    code = run(arguments)
    # A busy worker may miss their question, to which all may answer within a second.
    while code and arguments[0] in ("agents", "doctor", "top"):
        code = run(arguments)
    print(f"\\n=== {arguments[0]}: {code}", flush=True)
"""


def test_every_command_in_a_terminal(stack: Stack, tmp_path: Path) -> None:
    with Orchestrator(stack.settings) as orchestrator:
        call = '/refund {"order_id": "7", "amount": 80}'
        waits = [
            orchestrator.enqueue("support", call, conversation_id=f"term:{number}").turn_id
            for number in range(3)
        ]
        until(lambda: all(orchestrator.turn(each).pending() for each in waits))
        [call_id] = [call.call_id for call in orchestrator.turn(waits[0]).pending()]
    every = [
        ["--version"],
        ["version"],
        ["init", str(tmp_path / "new")],
        ["agents"],
        ["settings"],
        ["doctor"],
        ["keys", "create", "acme"],
        ["keys", "list"],
        ["enqueue", "plan", "hello", "--conversation", "term:plan"],
        ["enqueue", "plan", "hello", "--conversation", "term:plan", "--wait"],
        ["enqueue", "plan", "hello", "--conversation", "term:plan", "--stream"],
        ["turns"],
        ["top", "--once"],
        ["turn", waits[0]],
        ["conversations"],
        ["approvals"],
        ["pending", waits[0]],
        ["approve", waits[0], call_id],
        ["reject", waits[1], call_id, "--reason", "no"],
        ["follow", waits[0]],
        ["follow", waits[1]],
        ["cancel", waits[2]],
        ["retry", "--agent", "nonesuch"],
        ["history", "term:plan"],
        ["reset", "term:plan", "--yes"],
        ["ends"],
    ]
    with Terminal(
        json.dumps(every),
        redis_url=stack.redis_url,
        command=[sys.executable, "-c", EACH],
        columns=100,
    ) as terminal:
        assert terminal.wait(300) == 0
    ended = re.findall("^=== (.*): (\\d+)$", terminal.shown, re.M)
    assert ended == [(arguments[0], "0") for arguments in every], terminal.shown
    assert "Traceback" not in terminal.shown
    # Ids can be copied, however narrow the terminal is.
    listed = terminal.shown.partition("=== enqueue")[2]
    assert all(listed.count(turn_id) >= 2 for turn_id in waits)
    assert len(waits[0]) == 36
    tables = [line for line in terminal.shown.splitlines() if line.startswith(("┃", "│"))]
    assert tables
    assert max(map(len, tables)) <= 100


def test_a_typing_error_in_an_agents_name(tmp_path: Path) -> None:
    # Workers leave the turn to others for longer than anybody would wait here.
    with Stack(
        tmp_path, agents=("examples.agents",), workers=1, flower=False, unknown_agent_wait=600
    ) as stack:
        done = agentapi("enqueue", "suport", "hello", "--wait", redis_url=stack.redis_url)
        assert done.returncode == 3
        said = "UnknownAgent: no worker serves agent 'suport': did you mean 'support'?"
        assert said in done.stderr
        told = agentapi("enqueue", "suport", "hi", "--stream", "--json", redis_url=stack.redis_url)
        accepted = json.loads(told.stdout.splitlines()[0])
        assert json.loads(told.stderr)["error"]["code"] == "unknown_agent"
        with Orchestrator(stack.settings) as orchestrator:
            assert orchestrator.turn(accepted["turn_id"]).status() == "cancelled"


def test_ends_are_followed(stack: Stack) -> None:
    with Terminal("ends", "--follow", "--user", "ends", redis_url=stack.redis_url) as terminal:
        # The first end is only seen by a reader that was there; so turns end until one is.
        seen = False
        while not seen:
            agentapi("enqueue", "plan", "hello", "--user", "ends", "--conversation", "ends:1",
                     "--wait", redis_url=stack.redis_url)  # fmt: skip
            seen = terminal.shows("  completed  plan  ends:1\n")
        terminal.press(CTRL_C)
        assert terminal.wait() == 130


def test_the_doctor_of_a_healthy_stack(stack: Stack) -> None:
    done = agentapi("doctor", redis_url=stack.redis_url)
    while done.returncode:
        # The first sweep comes a moment after the start, and a busy worker may miss a question.
        done = agentapi("doctor", redis_url=stack.redis_url)
    for said in ("append-only file is on", "noeviction", "worker1@", "support", "all are running"):
        assert said in done.stdout


def test_the_doctor_without_servers() -> None:
    done = agentapi("doctor", redis_url=f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    assert done.returncode == 1
    assert "out of reach" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_settings_hide_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hunter2")
    monkeypatch.setenv("AGENTAPI_PROVIDER_LIMITS", '{"openai": {"tokens": 5}}')
    done = agentapi("settings", redis_url="redis://u:hunter2@localhost/0")
    assert done.returncode == 0
    assert "redis://u:***@localhost/0" in done.stdout
    assert "AGENTAPI_LEASE_TTL" in done.stdout
    assert '{"openai":{"tokens":5}}' in done.stdout
    assert "hunter2" not in done.stdout


def test_errors_are_one_line(stack: Stack) -> None:
    done = agentapi("turn", "nonsense", redis_url=stack.redis_url)
    assert done.returncode == 2
    assert done.stderr.startswith("InvalidInput: 'nonsense' is not a turn id")
    assert "Traceback" not in done.stderr


def test_the_version() -> None:
    for asked in ("version", "--version"):
        done = agentapi(asked, redis_url="")
        assert (done.returncode, done.stdout) == (0, f"{version('agentapi')}\n")


def test_the_demo_wants_the_providers_key_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = agentapi("demo", "--provider", "openai", redis_url="")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("ProviderMisconfigured: OPENAI_API_KEY is not set")
    assert done.stderr.count("\n") == 1


def test_up_without_its_server_is_one_line() -> None:
    done = agentapi("up", redis_url=f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    assert done.returncode == 4
    assert done.stderr.startswith("StoreUnavailable: ")
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stdout + done.stderr


def test_workers_cannot_be_asked_without_their_broker(tmp_path: Path) -> None:
    stack = Stack(tmp_path, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(BrokerUnavailable, match="is out of reach"):
        stack.wait_for_workers(1)


def test_a_gateway_finds_modules_of_the_working_directory(redis_url: str, tmp_path: Path) -> None:
    text = 'from agentapi import Agent\n\nagent = Agent(name="own", provider="offline")\n'
    (tmp_path / "mine.py").write_text(text)
    # The installed command, which Python starts without the working directory on its path.
    process = subprocess.Popen(
        [Path(sys.executable).parent / "agentapi", "gateway", "--host", "::1", "--port", "0",
         "--json"],
        env={**os.environ, "AGENTAPI_REDIS_URL": redis_url, "AGENTAPI_AGENTS": "mine"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines = (json.loads(line) for line in process.stdout)
        address = next(line["address"] for line in lines if line["event"] == "gateway.listening")
        assert address.startswith("http://[::1]:")
        models = httpx2.get(f"{address}/v1/models", timeout=150).json()["data"]
        assert [model["id"] for model in models] == ["own"]
        process.terminate()
        process.communicate(timeout=150)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_the_demo_checks_itself_and_leaves_nothing_running(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "demo", "--conversations", "12"],
        env={**os.environ, "PYTHONPATH": root, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    assert "12 histories hold exactly their turns, in order; 2 workers served" in done.stdout
    # A turn that waited long for a busy machine has been dispatched more than once.
    seen = re.search(r"Flower saw (\d+) tasks", done.stdout)
    assert seen is not None
    assert int(seen[1]) >= 60
    assert list(tmp_path.glob(".agentapi/demo/valkey/appendonlydir/*"))
    assert processes_with(str(tmp_path)) == []


def test_up_stops_cleanly_and_takes_its_children_with_it_when_killed(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    for end in ("terminate", "kill"):
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.main", "up", "--workers", "1"],
            env={**os.environ, "PYTHONPATH": root, "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        assert process.stdout is not None
        shown = read_until(process.stdout, "AGENTAPI_REDIS_URL=redis://127.0.0.1:")
        assert re.search(r"console *│ http://127.0.0.1:\d+/console ", shown)
        if end == "terminate":
            see_showcase(shown)
            [pid] = re.findall(r"worker1 \(pid (\d+)\)", shown)
            os.kill(int(pid), signal.SIGKILL)
            assert process.stderr is not None
            told = read_until(process.stderr, "replaces worker1")
            assert "worker1 was killed by SIGKILL; restarting it in 1 s" in told
        getattr(process, end)()
        process.communicate(timeout=100)
        assert process.returncode == (0 if end == "terminate" else -9)
        until(lambda: not processes_with(str(tmp_path)))


def see_showcase(shown: str) -> None:
    """The example conversations have an approval that waits, a turn that fails, and children."""
    [url] = re.findall(r"AGENTAPI_REDIS_URL=(redis://\S+)", shown)
    with Orchestrator(load_settings(redis_url=url, broker_url=url)) as orchestrator:
        until(lambda: len(list(orchestrator.approvals())) == 2)
        until(lambda: list(orchestrator.turns(status="failed", user_id="donald")))
        [editor] = orchestrator.turns(agent="editor")
        assert orchestrator.turn(editor.turn_id).result(timeout=150).text
        assert orchestrator.history("user:ada")


def test_a_demo_that_is_kept_can_be_looked_at(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "orchestrator.cli.main", "demo", "--keep", "--workers", "1"),
            *("--conversations", "2", "--turns", "1"),
        ],
        env={**os.environ, "PYTHONPATH": root, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        report = read_until(process.stdout, "all is well")
        assert re.search(
            r"console http://127.0.0.1:\d+/console", read_until(process.stderr, "/console")
        )
        [url] = re.findall(r"Valkey +(redis://\S+)", report)
        with Orchestrator(load_settings(redis_url=url, broker_url=url)) as orchestrator:
            kept = {summary.conversation_id for summary in orchestrator.conversations()}
        assert {"demo:000", "demo:001", "user:ada"} <= kept
        process.terminate()
        process.communicate(timeout=150)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def read_until(pipe: IO[str], text: str) -> str:
    """What a process prints, up to the line with this text."""
    shown = ""
    while text not in shown:
        line = pipe.readline()
        assert line, shown
        shown += line
    return shown


def processes_with(folder: str) -> list[str]:
    """Command lines of processes that run in a folder or name it."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            here = os.readlink(process / "cwd")
        except OSError:
            continue
        if folder in command or here.startswith(folder):
            found.append(command)
    return found
