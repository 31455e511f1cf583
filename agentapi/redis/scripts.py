"""The Lua scripts: loaded from their files, each with the common prelude before it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeAlias

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
    "expire",
    "hasten",
    "load",
    "orphan",
    "overdue",
    "park",
    "perish",
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


Call: TypeAlias = tuple[Sequence[str], Sequence[Any]]
"""Keys and arguments of one run of a script."""


class Scripts:
    """The scripts, registered with a client: one EVALSHA each, loaded when Redis lacks it."""

    def __init__(self, client: redis.Redis, *, keep_connections: bool = False) -> None:
        """Register them.

        Args:
            client: Pooled.
            keep_connections: Each thread that calls keeps a connection. The pool would look at
                its socket before each command and lock twice, an eighth of what a turn costs a
                worker; but threads that come and go would connect again and again.
        """
        self._client = client
        self._keep = keep_connections
        self._kept = threading.local()
        self._scripts = {name: client.register_script(source(name)) for name in TRANSITIONS}

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script."""
        try:
            return self._scripts[name](keys=keys, args=args, client=self._client_here())
        except (redis.ConnectionError, redis.TimeoutError):
            self._let_go()
            raise

    def call_many(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """Run a script several times, in this order, in one round trip.

        The first brings the script's text, so that Redis has it for those that follow. Were they
        all to name it only, another process could load it in between: some would run, and those
        before them not. redis-py asks Redis for it before each pipeline, a round trip more.
        """
        if len(calls) == 1:
            return [self.call(name, *calls[0])]
        pipeline = self._client.pipeline(transaction=False)
        for number, (keys, args) in enumerate(calls):
            if number == 0:
                pipeline.eval(source(name), len(keys), *keys, *args)
            else:
                pipeline.evalsha(self._scripts[name].sha, len(keys), *keys, *args)
        return pipeline.execute()

    def _client_here(self) -> redis.Redis:
        if not self._keep:
            return self._client
        client: redis.Redis | None = getattr(self._kept, "client", None)
        if client is None:
            client = self._kept.client = self._client.client()  # type: ignore[no-untyped-call]
        return client

    def _let_go(self) -> None:
        """Behind sentinels only a pool asks who is the master now; a connection never does."""
        client: redis.Redis | None = getattr(self._kept, "client", None)
        if client is not None:
            del self._kept.client
            client.close()
