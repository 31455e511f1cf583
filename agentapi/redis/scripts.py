"""Lua scripts: read from files, registered with a client, run with one EVALSHA for each call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Generic, TypeAlias, TypeVar

import redis

from agentapi.metrics import recorder
from agentapi.metrics.catalog import SCRIPT_DURATION
from agentapi.redis.archived import MAX_RETURNS, Away, away_of
from agentapi.redis.script_text import script_text

COMMON: Final = "agentapi.redis"
"""The package with the prelude of every script."""

Call: TypeAlias = tuple[Sequence[str], Sequence[Any]]
"""Keys and arguments of one run of a script."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ScriptRun(Generic[T]):
    """One run of a script, for callers on threads and on event loops alike.

    Attributes:
        name: The script.
        read: Reads its answer.
    """

    name: str
    keys: Sequence[str]
    args: Sequence[Any]
    read: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class ScriptSet:
    """The Lua scripts of one package.

    Attributes:
        package: Its folder `lua` holds `prelude.lua` and a file for each script.
        names: The scripts.
    """

    package: str
    names: tuple[str, ...]

    def source(self, name: str) -> str:
        """The text that Redis gets: what it needs of the common and the package's prelude, then
        the script."""
        return _source(self.package, name)


@cache
def _source(package: str, name: str) -> str:
    own = files(package) / "lua"
    parts = (files(COMMON) / "lua" / "prelude.lua", own / "prelude.lua", own / f"{name}.lua")
    *preludes, script = (part.read_text(encoding="utf-8") for part in parts)
    return script_text(preludes, script)


class Scripts:
    """A set of scripts on a client for threads; for event loops see `agentapi.redis.aio`."""

    def __init__(
        self, client: redis.Redis, scripts: ScriptSet, *, keep_connections: bool = False
    ) -> None:
        """Register the scripts. Redis loads each when it is first called.

        Args:
            client: A pooled client.
            scripts: What to register.
            keep_connections: Whether each calling thread keeps a connection. Otherwise the pool
                checks a socket and takes two locks for each command, an eighth of a worker's cost
                for a turn. For threads that come and go, the pool is the cheaper choice.
        """
        self._client = client
        self._set = scripts
        self._keep = keep_connections
        self._kept = threading.local()
        self._scripts = {
            name: client.register_script(scripts.source(name)) for name in scripts.names
        }
        self.bring_back: Callable[[Away], object] | None = None
        """Brings a conversation back whose history is in the archive."""

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script. If it needs a history that is in the archive, bring that back first."""
        for _ in range(MAX_RETURNS if self.bring_back else 0):
            try:
                return self._call(name, keys, args)
            except redis.ResponseError as error:
                away = away_of(error)
                if away is None or self.bring_back is None:
                    raise
            self.bring_back(away)
        return self._call(name, keys, args)

    def _call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        metrics = recorder()
        began = time.perf_counter() if metrics.on else 0.0
        try:
            answer = self._scripts[name](keys=keys, args=args, client=self._client_here())
            if metrics.on:
                metrics.observe(SCRIPT_DURATION, time.perf_counter() - began, name)
            return answer
        except (redis.ConnectionError, redis.TimeoutError):
            self._let_go()
            raise

    def call_many(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """Run a script several times, in this order, in one round trip.

        The first call carries the script's text, so that Redis knows the script when the others
        name it by its hash. If all of them only named it, another process could load it in between:
        the later calls would then run and the earlier ones fail. redis-py's own answer is to ask
        Redis before each pipeline, which costs another round trip.
        """
        if len(calls) == 1:
            return [self.call(name, *calls[0])]
        pipeline = self._client.pipeline(transaction=False)
        for number, (keys, args) in enumerate(calls):
            if number == 0:
                pipeline.eval(self._set.source(name), len(keys), *keys, *args)
            else:
                pipeline.evalsha(self._scripts[name].sha, len(keys), *keys, *args)
        metrics = recorder()
        began = time.perf_counter() if metrics.on else 0.0
        answers = pipeline.execute()
        if metrics.on:
            metrics.observe(SCRIPT_DURATION, time.perf_counter() - began, name)
        return answers

    def _client_here(self) -> redis.Redis:
        if not self._keep:
            return self._client
        client: redis.Redis | None = getattr(self._kept, "client", None)
        if client is None:
            # One connection for each thread, so no lock is needed around it.
            client = self._kept.client = self._client.client()  # type: ignore[no-untyped-call]
        return client

    def _let_go(self) -> None:
        """Close this thread's connection. Behind Sentinel only the pool looks up the master; a
        kept connection would stay with a server that is a replica by now."""
        client: redis.Redis | None = getattr(self._kept, "client", None)
        if client is not None:
            del self._kept.client
            client.close()
