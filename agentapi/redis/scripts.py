"""Lua scripts: read from files, registered with a client, and run with one EVALSHA per call."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Generic, TypeAlias, TypeVar

import redis
from redis.exceptions import NoScriptError

from agentapi.errors import ArchiveLost
from agentapi.metrics import recorder
from agentapi.metrics.catalog import SCRIPT_DURATION
from agentapi.redis.archived import MAX_RETURNS, Absent, away_of
from agentapi.redis.cluster import ClusterClient
from agentapi.redis.commands import Command, Replicas
from agentapi.redis.routes import guard_of
from agentapi.redis.script_text import script_text

COMMON: Final = "agentapi.redis"
"""The package with the prelude of every script."""

WITHOUT_GUARD: Final = "KEYS[#KEYS] = nil\n"
"""Lua code that removes the guard from a script's keys (`guard_of`)."""

Call: TypeAlias = tuple[Sequence[str], Sequence[Any]]
"""Keys and arguments of one run of a script."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ScriptRun(Generic[T]):
    """One run of a script, for callers on threads and on event loops alike.

    Attributes:
        name: The script.
        read: Reads its answer.
        if_lost: Its arguments when the archive does not have what it needs; None if it then fails.
    """

    name: str
    keys: Sequence[str]
    args: Sequence[Any]
    read: Callable[[Any], T]
    if_lost: Sequence[Any] | None = None


@dataclass(frozen=True, slots=True)
class ScriptSet:
    """The Lua scripts of one package.

    Attributes:
        package: Its folder `lua` holds `prelude.lua` and a file for each script.
        names: The scripts.
    """

    package: str
    names: tuple[str, ...]

    def cluster_source(self, name: str) -> str:
        """The source for a cluster, where the last key of each call is a guard (`guard_of`)."""
        return WITHOUT_GUARD + self.source(name)

    def source(self, name: str) -> str:
        """The text for Redis: the needed parts of the common and the package's prelude, then the
        script."""
        return _source(self.package, name)


def hash_of(text: str) -> str:
    """Redis's hash of a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@cache
def _source(package: str, name: str) -> str:
    own = files(package) / "lua"
    parts = (files(COMMON) / "lua" / "prelude.lua", own / "prelude.lua", own / f"{name}.lua")
    *preludes, script = (part.read_text(encoding="utf-8") for part in parts)
    return script_text(preludes, script)


WAIT_AFTER: Final = frozenset({"enqueue", "commit"})
"""Scripts whose writes must survive a failover, if replicas are waited for: those that accept a
turn or end it. Steps in between are repeated if they are lost."""


class ClusterScripts:
    """A set of scripts on a cluster: each call goes to the node of its slot."""

    def __init__(
        self, client: ClusterClient, scripts: ScriptSet, replicas: Replicas | None
    ) -> None:
        self._client = client
        self._replicas = replicas
        self._texts = {name: scripts.cluster_source(name) for name in scripts.names}
        self._hashes = {name: hash_of(text) for name, text in self._texts.items()}

    def call_many(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """See `Scripts.call_many`; errors are among the answers."""
        return self._send(name, calls, None)

    def call_each(self, name: str, calls: Sequence[Call], patience: float | None) -> list[Any]:
        """See `Scripts.call_each`."""
        answers = self._send(name, calls, patience)
        if answers and all(isinstance(answer, redis.RedisError) for answer in answers):
            raise answers[0]
        return answers

    def _send(self, name: str, calls: Sequence[Call], patience: float | None) -> list[Any]:
        text, sha = self._texts[name], self._hashes[name]
        replicas = self._replicas if name in WAIT_AFTER else None
        commands = [
            Command(
                ("EVALSHA", sha, len(keys) + 1, *keys, guard_of(keys[0]), *args),
                script=text,
                replicas=replicas,
            )
            for keys, args in calls
        ]
        metrics = recorder()
        began = time.perf_counter() if metrics.on else 0.0
        answers = self._client.send(commands, patience=patience)
        if metrics.on:
            metrics.observe(SCRIPT_DURATION, time.perf_counter() - began, name)
        return answers


class Scripts:
    """A set of scripts on a client for threads; for event loops see `agentapi.redis.aio`."""

    def __init__(
        self,
        client: redis.Redis,
        scripts: ScriptSet,
        *,
        keep_connections: bool = False,
        replicas: Replicas | None = None,
    ) -> None:
        """Register the scripts. Redis loads each when it is first called.

        Args:
            client: A pooled client.
            scripts: What to register.
            keep_connections: Whether each calling thread keeps a connection. Otherwise the pool
                checks a socket and takes two locks for each command, an eighth of a worker's cost
                for a turn. For threads that come and go, the pool is the cheaper choice.
            replicas: The replicas that must have the writes of `WAIT_AFTER` before they count as
                done.
        """
        self._client = client
        self._set = scripts
        self._keep = keep_connections
        self._kept = threading.local()
        self._scripts = {
            name: client.register_script(scripts.source(name)) for name in scripts.names
        }
        self._cluster = (
            ClusterScripts(client, scripts, replicas) if isinstance(client, ClusterClient) else None
        )
        self._replicas = replicas
        self.bring_back: Callable[[Absent], object] | None = None
        """Brings records back from the archive."""

    @property
    def on_cluster(self) -> bool:
        """Whether keys of one call must be in one slot."""
        return self._cluster is not None

    def call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run a script. If it needs a record that is in the archive, bring that back first."""
        for _ in range(MAX_RETURNS if self.bring_back else 0):
            try:
                return self._call(name, keys, args)
            except redis.ResponseError as error:
                away = away_of(error)
                if away is None or self.bring_back is None:
                    raise
            self.bring_back(away)
        return self._call(name, keys, args)

    def run(self, run: ScriptRun[T]) -> T:
        """Run a script and read its answer; raises like `call`."""
        try:
            answer = self.call(run.name, run.keys, run.args)
        except ArchiveLost:
            if run.if_lost is None:
                raise
            answer = self.call(run.name, run.keys, run.if_lost)
        return run.read(answer)

    def _call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if self._cluster is not None:
            return _answered(self._cluster.call_many(name, [(keys, args)])[0])
        metrics = recorder()
        began = time.perf_counter() if metrics.on else 0.0
        try:
            if self._replicas is not None and name in WAIT_AFTER:
                answer = _answered(self._replicated(self._replicas, name, [(keys, args)])[0])
            else:
                answer = self._scripts[name](keys=keys, args=args, client=self._client_here())
            if metrics.on:
                metrics.observe(SCRIPT_DURATION, time.perf_counter() - began, name)
            return answer
        except (redis.ConnectionError, redis.TimeoutError):
            self._let_go()
            raise

    def call_many(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """Run a script several times, in this order, in one round trip.

        The first call contains the script's text, so that Redis knows the script when the others
        name it by its hash. If all calls only named it, another process could load it in between,
        so that later calls would run and earlier ones fail. redis-py itself asks Redis before each
        pipeline, which costs another round trip.

        On a cluster each node has its own pipeline, and only calls of the same slot are ordered. A
        call that needs a record from the archive is repeated when the others are done.
        """
        if len(calls) == 1:
            return [self.call(name, *calls[0])]
        answers = self._many(name, calls)
        return [self._settled(name, *pair) for pair in zip(calls, answers, strict=True)]

    def _settled(self, name: str, call: Call, answer: Any) -> Any:
        if isinstance(answer, redis.RedisError) and self.bring_back and away_of(answer):
            return self.call(name, *call)
        return _answered(answer)

    def _many(self, name: str, calls: Sequence[Call]) -> list[Any]:
        """The answers of several calls, errors among them."""
        if self._cluster is not None:
            return self._cluster.call_many(name, calls)
        if self._replicas is not None and name in WAIT_AFTER:
            return self._replicated(self._replicas, name, calls)
        pipeline = self._client.pipeline(transaction=False)
        for number, (keys, args) in enumerate(calls):
            if number == 0:
                pipeline.eval(self._set.source(name), len(keys), *keys, *args)
            else:
                pipeline.evalsha(self._scripts[name].sha, len(keys), *keys, *args)
        metrics = recorder()
        began = time.perf_counter() if metrics.on else 0.0
        answers = pipeline.execute(raise_on_error=False)
        if metrics.on:
            metrics.observe(SCRIPT_DURATION, time.perf_counter() - began, name)
        return answers

    def call_each(
        self, name: str, calls: Sequence[Call], *, patience: float | None = None
    ) -> list[Any]:
        """Like `call_many`, but an unavailable shard does not hold up the others' answers.

        Args:
            name: The script.
            calls: Keys and arguments of each run.
            patience: Seconds to wait for a shard of a cluster.

        Returns:
            The answer of each call, or the `redis.RedisError` that it failed with, unless all
            failed.
        """
        if self._cluster is not None:
            return self._cluster.call_each(name, calls, patience)
        return self.call_many(name, calls)

    def _replicated(self, replicas: Replicas, name: str, calls: Sequence[Call]) -> list[Any]:
        """Run a script, and wait for replicas on the connection that wrote."""
        try:
            return self._try_replicated(replicas, name, calls, by_text=len(calls) > 1)
        except NoScriptError:
            return self._try_replicated(replicas, name, calls, by_text=True)

    def _try_replicated(
        self, replicas: Replicas, name: str, calls: Sequence[Call], *, by_text: bool
    ) -> list[Any]:
        pipeline = self._client_here().pipeline(transaction=False)
        for number, (keys, args) in enumerate(calls):
            text = by_text and number == 0
            what = self._set.source(name) if text else self._scripts[name].sha
            command = ("EVAL" if text else "EVALSHA", what, len(keys), *keys, *args)
            pipeline.command_stack.append((command, {}))
        pipeline.command_stack += replicas.wait(calls[-1][0][0])
        *answers, _, reached = map(_unless_unknown, pipeline.execute(raise_on_error=False))
        if (missing := replicas.missing(_answered(reached))) is not None:
            raise missing
        return answers

    def _client_here(self) -> redis.Redis:
        if not self._keep:
            return self._client
        client: redis.Redis | None = getattr(self._kept, "client", None)
        if client is None:
            # One connection per thread, so it needs no lock.
            client = self._kept.client = self._client.client()  # type: ignore[no-untyped-call]
        return client

    def _let_go(self) -> None:
        """Close this thread's connection. Behind Sentinel only the pool looks up the master; a kept
        connection would stay with a server that may have become a replica."""
        client: redis.Redis | None = getattr(self._kept, "client", None)
        if client is not None:
            del self._kept.client
            client.close()


def _answered(answer: Any) -> Any:
    if isinstance(answer, redis.RedisError):
        raise answer
    return answer


def _unless_unknown(answer: Any) -> Any:
    """An answer, unless it says that Redis does not know the script."""
    return _answered(answer) if isinstance(answer, NoScriptError) else answer
