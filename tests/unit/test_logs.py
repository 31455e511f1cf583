"""A log line is one line, and each of its values one word."""

from __future__ import annotations

import ast
import json
import logging
import re
import shlex
from pathlib import Path

import pytest

from agentapi.logs import JsonFormatter, LogLine, TextFormatter, binding, line

ROOT = Path(__file__).parents[2]

PAGE = ROOT / "docs/guides/logs.md"

LEVELS = ("debug", "info", "warning", "error", "critical", "exception")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("user:42", "user:42"),
        ("пользователь", "пользователь"),
        (3, "3"),
        ("", '""'),
        ("a b", '"a b"'),
        ("c error=none", '"c error=none"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("two\nlines", '"two\\nlines"'),
        ("two\u2028lines", '"two\\u2028lines"'),
        ("\x1b[31m", '"\\x1b[31m"'),
        ("right\u202eleft", '"right\\u202eleft"'),
        ("half \ud83d", '"half \\ud83d"'),
        ("no\u00a0break", '"no\\xa0break"'),
    ],
)
def test_values(value: object, shown: str) -> None:
    said = str(line("turn.completed", conversation_id=value, attempt=1))
    assert said == f"turn.completed conversation_id={shown} attempt=1"
    assert len(said.splitlines()) == 1
    assert len(shlex.split(said)) == 3
    said.encode()


def record(message: object, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("agentapi.turn", logging.WARNING, "x.py", 1, message, args, info)


@pytest.mark.parametrize("value", ["a b", "two\nlines", 3, 2.5, True, None, 2**70, "half \ud83d"])
def test_json_keeps_values(value: object) -> None:
    text = JsonFormatter().format(record(line("turn.lost", turn_id="042", value=value)))
    assert len(text.splitlines()) == 1
    found = json.loads(text)
    assert found["event"] == "turn.lost"
    assert found["turn_id"] == "042"
    assert found["level"] == "WARNING"
    assert found["logger"] == "agentapi.turn"
    assert found["time"].endswith("Z")
    shown = {2**70: str(2**70), "half \ud83d": "half \\ud83d"}
    assert found["value"] == (shown.get(value, value) if isinstance(value, (int, str)) else value)


def test_json_of_other_libraries() -> None:
    found = json.loads(JsonFormatter().format(record("task %s began", "t1")))
    assert found["message"] == "task t1 began"
    assert "event" not in found


def test_json_with_a_traceback() -> None:
    try:
        raise KeyError("k")
    except KeyError as error:
        found = json.loads(JsonFormatter().format(record("failed", error=error)))
    assert found["traceback"].endswith("\nKeyError")
    detail = LogLine("service.failed", {"service": "sweep"}, "File x, line 1")
    assert json.loads(JsonFormatter().format(record(detail)))["detail"] == "File x, line 1"
    assert str(detail) == "service.failed service=sweep\nFile x, line 1"


def test_nothing_is_formatted_that_is_not_written() -> None:
    class Never:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    logging.getLogger("agentapi.test").debug(line("turn.refused", value=Never()))


def calls_of_loggers() -> list[str]:
    """Log calls of the packages that are not made with `line`."""
    found = []
    for package in ("agentapi", "workers", "orchestrator"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="log"), attr=attr), args=[first, *more]
                    ) if attr in LEVELS and (more or not _is_line(first)):
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def _is_line(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="line" | "claim_line" | "LogLine")):
            return True
        case _:
            return False


def test_there_is_one_way_to_log() -> None:
    assert calls_of_loggers() == []


WORKED_OUT = {
    *("turn.completed", "turn.failed", "turn.cancelled", "check.fail", "check.warn"),
    *("hook.failed", "hook.given_up", "process.crashed", "thread.crashed", "error.ignored"),
}
"""Events whose names are not written where they are logged."""


def test_the_page_names_every_event() -> None:
    tables = PAGE.read_text().partition("## Turns")[2]
    cells = [row.split("|")[1] for row in tables.splitlines() if row.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`([a-z_.]+)`", cell)}
    assert named == events() | WORKED_OUT


def events() -> set[str]:
    """The names of all events that the packages log."""
    found = set()
    for package in ("agentapi", "workers", "orchestrator"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Name(id="line" | "claim_line" | "LogLine"),
                        args=[ast.Constant(value=str() as name), *_],
                    ):
                        found.add(name)
    return found


def test_every_line_of_a_task_has_the_fields_that_it_has() -> None:
    ids = {"turn_id": "042", "trace_id": "abc"}
    with binding(ids):
        ours = record(line("provider.failed", provider="openai", turn_id="own"))
        assert "turn_id=own trace_id=abc" in TextFormatter().format(ours)
        shown = json.loads(JsonFormatter().format(ours))
        assert (shown["turn_id"], shown["trace_id"]) == ("own", "abc")
        theirs = json.loads(JsonFormatter().format(record("of a library")))
        assert (theirs["message"], theirs["turn_id"]) == ("of a library", "042")
    assert "trace_id" not in TextFormatter().format(ours)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_the_text_of_an_exception_is_not_logged(formatter: logging.Formatter) -> None:
    try:
        try:
            raise ValueError("lark" + "spur")
        except ValueError as cause:
            raise RuntimeError("lark" + "spur") from cause
    except RuntimeError as error:
        text = formatter.format(record("failed", error=error))
    assert "larkspur" not in text
    assert "ValueError" in text
    assert "RuntimeError" in text
    assert "test_logs.py" in text
