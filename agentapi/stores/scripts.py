"""The Lua scripts: loaded from their files, each with the common prelude before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import redis

TRANSITIONS: Final = (
    "append",
    "cancel",
    "claim",
    "commit",
    "decide",
    "deliver",
    "elect",
    "emit",
    "enqueue",
    "load",
    "orphan",
    "overdue",
    "park",
    "record",
    "redispatch",
    "release",
    "renew",
    "reset",
    "resign",
    "retry",
    "summarise",
    "suspend",
)
"""Every script, one for each change of state."""


@cache
def source(name: str) -> str:
    """The text of a script as Redis gets it."""
    folder = files("agentapi.stores") / "lua"
    prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
    return f"{prelude}\n{(folder / f'{name}.lua').read_text(encoding='utf-8')}"


class Scripts:
    """The scripts, registered with a client: one EVALSHA each, loaded when Redis lacks it."""

    def __init__(self, client: redis.Redis) -> None:
        self._scripts = {name: client.register_script(source(name)) for name in TRANSITIONS}

    def call(
        self,
        name: str,
        keys: Sequence[str],
        args: Sequence[Any],
        pipeline: redis.client.Pipeline | None = None,
    ) -> Any:
        """Run a script, or add it to a pipeline."""
        return self._scripts[name](keys=keys, args=args, client=pipeline)
