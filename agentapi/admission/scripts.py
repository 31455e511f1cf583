"""The Lua scripts for providers, each with the stores' prelude and their own before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import redis

SCRIPTS: Final = ("admit", "answer", "fail", "settle")
"""All scripts, one per change of state."""


@cache
def source(name: str) -> str:
    """The complete text of a script."""
    own = files("agentapi.admission") / "lua"
    parts = (
        files("agentapi.stores") / "lua" / "prelude.lua",
        own / "prelude.lua",
        own / f"{name}.lua",
    )
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


class Scripts:
    """The scripts, registered with a client: one EVALSHA per call, loaded when missing."""

    def __init__(self, client: redis.Redis) -> None:
        self._scripts = {name: client.register_script(source(name)) for name in SCRIPTS}

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script."""
        return self._scripts[name](keys=keys, args=args)
