"""The hash slot of a cluster that a command goes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})

_STREAMS: Final = ("STREAMS", b"STREAMS")

_WITHOUT_KEY: Final = frozenset(
    {"CONFIG", "DBSIZE", "FLUSHALL", "FLUSHDB", "INFO", "PING", "SCAN", "SCRIPT", "TIME", "WAIT"}
)


def key_of(args: Sequence[Any]) -> bytes | None:
    """The first key of a command; None for one that belongs to no slot."""
    # redis-py joins some command names of two words.
    name = str(args[0]).upper().partition(" ")[0]
    if name in _SCRIPTS:
        key = args[3] if int(args[2]) else None
    elif name in ("XREAD", "XREADGROUP"):
        key = args[next(n for n, arg in enumerate(args) if arg in _STREAMS) + 1]
    elif name in _WITHOUT_KEY or len(args) < 2:
        key = None
    else:
        key = args[1]
    return key if key is None or isinstance(key, bytes) else str(key).encode()


def waited_of(key: str) -> str:
    """A key in the same slot that is written before each wait for replicas.

    WAIT covers only what its own connection has written. A repeated call may find its work done and
    write nothing; then the wait would prove nothing.
    """
    return f"agentapi:{{{_tag_of(key)}}}:waited"


def guard_of(key: str) -> str:
    """A key in the same slot that is never written.

    A script that names it in addition to its own keys is refused as a whole while its slot
    migrates, when its keys may be on both nodes. Without it the script could start, and stop
    halfway at a key that has moved.
    """
    return f"agentapi:{{{_tag_of(key)}}}:never"


def _tag_of(key: str) -> str:
    """A key's hash tag, or a tag with the same slot for a key without one."""
    _, brace, rest = key.partition("{")
    tag, closing, _ = rest.partition("}")
    return tag if brace and closing and tag else key
