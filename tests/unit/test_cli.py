"""Parts of the command line: exit codes, completion, text for terminals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest

from agentapi import OnAbort, OnBusy, TurnStatus, errors
from orchestrator.cli.completion import STATUSES, agent_names
from orchestrator.cli.console import console, own_command, printable, real
from orchestrator.cli.failures import (
    MEANINGS,
    CommandFailed,
    ExitCode,
    exit_code_of,
    report,
    wants_json,
)
from orchestrator.cli.main import commands
from orchestrator.cli.options import OnAbortChoice, OnBusyChoice
from orchestrator.cli.tables import print_rows
from orchestrator.cli.times import clock, moment
from orchestrator.wording import counted


def test_choices_are_those_of_the_python_api() -> None:
    assert get_args(OnBusyChoice) == tuple(OnBusy)
    assert get_args(OnAbortChoice) == tuple(OnAbort)
    assert tuple(TurnStatus) == STATUSES


def test_the_own_command_works_as_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv/bin"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    assert own_command() == f"{folder / 'python'} -m orchestrator.cli.main"
    script = folder / "agentapi"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert own_command() == ".venv/bin/agentapi"
    monkeypatch.chdir(folder)
    assert own_command() == "./agentapi"
    monkeypatch.chdir("/usr")
    assert own_command() == str(script)
    monkeypatch.setenv("PATH", str(folder))
    assert own_command() == "agentapi"


def test_every_exit_code_has_a_meaning() -> None:
    assert list(MEANINGS) == list(ExitCode)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("x"), ExitCode.USAGE),
        (errors.ConfigurationError("x"), ExitCode.USAGE),
        (errors.ProviderMisconfigured("x"), ExitCode.USAGE),
        (errors.UnknownAgent("x"), ExitCode.NOT_FOUND),
        (errors.TurnNotFound("x"), ExitCode.NOT_FOUND),
        (errors.TurnFailed("x", error_code="unknown_agent"), ExitCode.NOT_FOUND),
        (errors.TurnFailed("x", error_code="provider_rejected"), ExitCode.FAILED),
        (errors.TurnCancelled("x"), ExitCode.FAILED),
        (errors.TurnTimeout("x"), ExitCode.TIMEOUT),
        (errors.LoginRefused("x"), ExitCode.UNAVAILABLE),
        (errors.BrokerUnavailable("x"), ExitCode.UNAVAILABLE),
        (errors.ApprovalRequired("x"), ExitCode.APPROVAL),
        (errors.ConversationBusy("x"), ExitCode.CONFLICT),
        (errors.CallNotPending("x"), ExitCode.CONFLICT),
        (errors.TurnNotForkable("x"), ExitCode.CONFLICT),
        (errors.TurnNotRetryable("x"), ExitCode.CONFLICT),
        (errors.TenantMismatch("x"), ExitCode.CONFLICT),
        (errors.StoreFault("x"), ExitCode.FAILED),
    ],
)
def test_exit_codes_of_errors(error: Exception, code: ExitCode) -> None:
    assert exit_code_of(error) is code


def test_an_error_that_nobody_expected_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        report(ZeroDivisionError("x"), as_json=False)


def test_json_is_wanted_before_the_arguments_are_parsed() -> None:
    assert wants_json(["turns", "--json"])
    assert not wants_json(["turns"])
    assert not wants_json(["worker", "--", "--json"])


def test_text_for_a_terminal() -> None:
    assert printable("hello\n\tGrüße 🎉") == "hello\n\tGrüße 🎉"
    assert printable("\x1b[2J\x07\r") == "\\x1b[2J\\x07\\x0d"
    # An embedding that would reverse the rest of the line.
    assert printable("\u202e") == "\\x202e"


def test_numbers_and_their_nouns() -> None:
    assert [counted(number, "step") for number in (0, 1, 2)] == ["0 steps", "1 step", "2 steps"]
    assert counted(2, "reply", "replies") == "2 replies"


def test_times_as_people_type_them() -> None:
    assert moment("--since", None) is None
    for text, ago in (("90s", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604_800), ("1w", 604_800)):
        assert moment("--since", text) == pytest.approx(time.time() - ago, abs=10)
    assert moment("--since", "1700000000.5") == 1_700_000_000.5
    assert moment("--since", "2026-01-31T12:00+00:00") == 1_769_860_800
    assert moment("--since", "2026-01-31") == datetime(2026, 1, 31).timestamp()
    for wrong in ("yesterday", "3 days", "2h30m", ""):
        with pytest.raises(CommandFailed, match=r"--since is .* expected how long ago"):
            moment("--since", wrong)


def test_times_for_people_have_a_date_unless_it_is_today() -> None:
    now = time.time()
    then = datetime(2026, 1, 31, 3, 26, 14).timestamp()
    assert clock(None) is None
    assert clock(then) == "2026-01-31 03:26:14"
    assert clock(now) == datetime.fromtimestamp(now).strftime("%H:%M:%S")


def test_help_has_no_line_breaks_inside_of_paragraphs() -> None:
    texts = [each.help for each in commands.registered_commands]
    assert all(texts)
    assert not [text for text in texts if re.search(r"[^\n]\n[^\n]", str(text))]
    [enqueue] = [text for text in texts if str(text).startswith("Send a message to an agent.\n\n")]
    assert "Ctrl-C ends the wait; the turn continues." in str(enqueue)


def listed(capsys: pytest.CaptureFixture[str], error: str) -> list[str]:
    row = {"turn": "t" * 36, "status": "failed", "user": None, "agent": "support", "error": error}
    print_rows([row], head=2, long="error")
    return capsys.readouterr().out.splitlines()


def test_lists_cut_nothing_in_narrow_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real(console), "width", 50)
    error = "model_error: " + "word " * 10 + "\x1b[31m"
    safe = error.replace("\x1b", "\\x1b")
    assert listed(capsys, error) == [
        f"{'t' * 36}  failed",
        "  agent support",
        f"  error {safe}",
    ]
    monkeypatch.setattr(real(console), "width", 100)
    wide = listed(capsys, error)
    assert wide[3].startswith(f"│ {'t' * 36} │ failed │ support │ model_error: ")
    assert "user" not in wide[1]
    assert all(len(line) <= 100 for line in wide)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").write_text("raise RuntimeError('imported')\n")
    (tmp_path / "shop/agents.py").write_text(
        "import agentapi\n"
        "raise RuntimeError('imported')\n"
        "support = agentapi.Agent(name='support')\n"
        "sales = Agent('sales', model='x')\n"
        "other = Agent(name=NAME)\n"
        "tool = Tool(name='search')\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_agents_are_completed_without_importing_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTAPI_AGENTS", "shop.agents, nonesuch, shop.nonesuch")
    assert agent_names("s") == ["sales", "support"]
    assert agent_names("sup") == ["support"]
    monkeypatch.delenv("AGENTAPI_AGENTS")
    assert agent_names("") == []
    (project / ".env").write_text("AGENTAPI_AGENTS=shop.agents\n")
    assert agent_names("") == ["sales", "support"]
    (project / "shop/agents.py").write_text("def")
    assert agent_names("") == []


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("agentapi enqueue su", ["support"]),
        ("agentapi enqueue support hi --on-b", ["--on-busy"]),
        ("agentapi enqueue support hi --on-busy re", ["reject", "replace"]),
        ("agentapi turns --status fa", ["failed"]),
        ("agentapi turns --agent s", ["sales", "support"]),
        ("agentapi conv", ["conversations"]),
        ("agentapi keys re", ["revoke"]),
    ],
)
def test_a_shell_completes(project: Path, typed: str, completed: list[str]) -> None:
    words = typed.split(" ")
    done = start(
        project,
        AGENTAPI_AGENTS="shop.agents",
        _AGENTAPI_COMPLETE="complete_bash",
        COMP_WORDS=typed,
        COMP_CWORD=str(len(words) - 1),
    )
    assert done.stdout.split() == completed, done.stderr


SLOW = ("pydantic_settings", "celery", "google", "kombu", "openai", "redis", "mcp", "fastapi")
"""Packages that take long to import, and that help and completion do not need."""

SCRIPT = f"""
import sys
from orchestrator.cli.main import app
sys.argv = ["agentapi", *sys.argv[1:]]
try:
    app()
finally:
    found = sorted({{name.partition(".")[0] for name in sys.modules}} & set({SLOW}))
    print(*found, file=sys.stderr)
"""


def start(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command, which prints to standard error which slow packages it has imported."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
    )


def test_help_and_completion_import_little(project: Path) -> None:
    for arguments in (("--help",), ("enqueue", "--help"), ("--version",)):
        shown = start(project, *arguments)
        assert (shown.returncode, shown.stderr) == (0, "\n")
    typed = {"COMP_WORDS": "agentapi enqueue s", "COMP_CWORD": "2"}
    completed = start(project, AGENTAPI_AGENTS="shop.agents", _AGENTAPI_COMPLETE="complete_bash",
                      **typed)  # fmt: skip
    assert (completed.stdout.split(), completed.stderr) == (["sales", "support"], "\n")
