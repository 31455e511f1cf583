"""A log line is one line, and each of its values one word."""

from __future__ import annotations

import shlex

import pytest

from workers.logs import line


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
    said = line("turn.completed", conversation_id=value, attempt=1)
    assert said == f"turn.completed conversation_id={shown} attempt=1"
    assert len(said.splitlines()) == 1
    assert len(shlex.split(said)) == 3
    said.encode()
