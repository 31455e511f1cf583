"""A packed record has every field that was packed, whatever the fields say."""

from __future__ import annotations

import json
from typing import Any, Final

import orjson
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.gateway.turn_labels import Labels, labelled
from tests.lua import PACK, in_lua

WORDS: Final = st.text(st.characters(codec="utf-8"), max_size=90)
VALUES: Final = WORDS | st.sampled_from(("", "0", "007", "-3", "1e5", "0x10", "9007199254740993"))
COUNTS: Final = st.integers(0, 10**9)
CONVERSATIONS: Final = st.builds(
    str.__add__,
    st.sampled_from(("", "gw:local:conv_", "user:42", "-", "a" * 300)),
    st.uuids(version=4).flatmap(
        lambda one: st.sampled_from(
            (str(one), one.hex, str(one).upper(), one.hex.upper(), f"{one.hex[:5]}-{one.hex[5:]}")
        )
    )
    | st.sampled_from(("", "d" * 31, "7" * 33, "7" * 19 + "-" + "7" * 12, "user:42")),
)
COSTS: Final = st.floats(0, 10).map(lambda cost: round(cost, 9))
PLAIN: Final = st.none() | st.booleans() | st.integers(0, 10**13) | COSTS | WORDS
NESTED: Final = st.lists(PLAIN, max_size=2) | st.dictionaries(WORDS, PLAIN, max_size=2)
CLAIMS: Final = st.builds(
    lambda at, attempt, worker: [at, "c", attempt, worker, "first", 0, 1],
    st.integers(-5, 10**9),
    st.integers(1, 9),
    st.sampled_from(("one@a", "two@b")),
)
RESPONSES: Final = st.builds(
    lambda at, counts, cost: [at, "m", 7, "one", *counts, cost, "", 0],
    st.integers(-5, 10**9),
    st.lists(COUNTS, min_size=3, max_size=3),
    COSTS | st.sampled_from((0, 0.0, 1.25e-05)),
)
MARKS: Final = st.builds(
    lambda at, kind, data: [at, kind, *data],
    st.integers(-5, 10**9),
    st.sampled_from("mtd"),
    st.lists(PLAIN | NESTED, max_size=9) | st.lists(PLAIN.filter(lambda one: one is not None)),
)
OTHERS: Final = st.dictionaries(
    st.sampled_from(("options", "part:0", "segments", "user", "outcome", "next")), VALUES
)
IMPLICIT: Final = orjson.dumps(labelled({}, Labels(implicit=True))).decode()
"""Metadata of a turn whose conversation the gateway has made."""
USUAL: Final = {"user": "", "metadata": "{}", "stream": "0"}
"""What a field says that is left out."""


def _usage(marks: list[list[Any]]) -> st.SearchStrategy[str]:
    """That of a response in the log, or another one."""
    of_marks = [",".join(map(str, mark[4:8])) for mark in marks if mark[1:4] == ["m", 7, "one"]]
    other = st.builds("{},{},{},{}".format, COUNTS, COUNTS, COUNTS, COSTS | st.just(0))
    return st.sampled_from(of_marks) | other if of_marks else other


@st.composite
def records(draw: st.DrawFn) -> dict[str, str]:
    """The fields of a turn that refers to its messages."""
    created = draw(st.integers(1, 2 * 10**12))
    marks = draw(st.lists(CLAIMS | RESPONSES | MARKS, max_size=60))
    fields = {
        "v": "3",
        "status": "completed",
        "created": str(created),
        "started": str(created + draw(st.integers(-5, 10**9))),
        "ended": str(created + draw(st.integers(-5, 10**9))),
        "conversation": draw(CONVERSATIONS),
        "agent": draw(VALUES),
        "tenant": draw(VALUES),
        "worker": draw(st.sampled_from(("one@a", "two@b", "7"))),
        "attempt": str(draw(COUNTS)),
        "steps": str(draw(COUNTS)),
        "events": str(draw(COUNTS)),
        "committed": f"{draw(st.integers(0, 2**32 - 1)):08x}",
        "at": ":".join(str(draw(COUNTS)) for _ in range(3)),
        "usage": draw(_usage(marks)),
        "size": str(draw(COUNTS)),
        "idle": str(draw(COUNTS)),
        "stream": draw(st.sampled_from("01")),
        "metadata": draw(st.sampled_from(("{}", IMPLICIT, '{"order":7}'))),
        "log": "\n".join(json.dumps(mark, separators=(",", ":")) for mark in marks),
        **draw(OTHERS),
    }
    left_out = draw(st.sets(st.sampled_from(("started", "tenant", "attempt", "idle", "metadata"))))
    return {name: value for name, value in fields.items() if name not in left_out}


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(fields=records())
def test_it_has_what_was_packed(redis_url: str, fields: dict[str, str]) -> None:
    with redis.Redis.from_url(redis_url) as client:
        flat = [part for pair in fields.items() for part in pair]
        found = in_lua(client, f"{PACK}return flat_list(record(KEYS[1]))", ["record"], flat)
        kept = dict(zip(*[iter(one.decode() for one in found)] * 2, strict=True))
        assert _marks(kept.pop("log")) == _marks(fields.pop("log"))
        assert kept == {name: value for name, value in fields.items() if value != USUAL.get(name)}
        values = client.hvals("record")
        assert max(map(len, values)) <= 64 or sum(map(len, values)) > 900
        assert client.hget("record", "status") == b"completed"


def _marks(log: str) -> list[Any]:
    return [json.loads(line) for line in log.splitlines()]


def test_what_the_gateway_says_of_most_turns_is_one_byte(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert in_lua(client, "return IMPLICIT", []) == IMPLICIT.encode()
