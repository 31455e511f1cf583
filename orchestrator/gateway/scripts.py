"""The gateway's own Lua scripts, with the turn protocol's prelude before each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import redis.asyncio

SCRIPTS: Final = (
    "admit",
    "audit",
    "charge",
    "conversation",
    "drop",
    "forget",
    "fork",
    "measure",
    "page",
    "rate",
    "release",
    "remove",
    "seek",
    "settle",
    "succeed",
    "wipe",
)
"""All scripts, one for each change of state."""


@cache
def source(name: str) -> str:
    """The text of a script as Redis gets it."""
    own = files("orchestrator.gateway") / "lua"
    parts = (
        files("agentapi.stores") / "lua" / "prelude.lua",
        own / "prelude.lua",
        own / f"{name}.lua",
    )
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


class Scripts:
    """The scripts, registered with a client: one EVALSHA per call, loaded if Redis lacks it."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._scripts = {name: client.register_script(source(name)) for name in SCRIPTS}

    async def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script."""
        return await self._scripts[name](keys=keys, args=args)
