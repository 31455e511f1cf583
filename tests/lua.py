"""Runs a test's own Lua code with the shared functions of the turn protocol's scripts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from agentapi.redis.script_text import script_text

PACK: Final = """
local turn = {}
for i = 1, #ARGV, 2 do
  turn[ARGV[i]] = ARGV[i + 1]
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(packed(turn)))
"""
"""Lua code that writes the fields of an ended turn as a packed record."""


def in_lua(client: Any, script: str, keys: Sequence[str], args: Sequence[Any] = ()) -> Any:
    """Run a script; returns its answer.

    Args:
        client: Redis's client, or a pipeline of it.
    """
    return client.eval(with_functions(script), len(keys), *keys, *args)


def turn_of(client: Any, key: str) -> dict[str, str]:
    """The fields of a turn's record, packed or not. The client must decode answers."""
    flat = in_lua(client, "return flat_list(record(KEYS[1]))", [key])
    return dict(zip(flat[::2], flat[1::2], strict=True))


@cache
def with_functions(script: str) -> str:
    """The source of a script, preceded by the functions that it calls."""
    folders = ("agentapi.redis", "agentapi.stores")
    preludes = [files(folder) / "lua" / "prelude.lua" for folder in folders]
    return script_text([prelude.read_text(encoding="utf-8") for prelude in preludes], script)
