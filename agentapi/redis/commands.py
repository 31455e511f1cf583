"""Commands for the nodes of a cluster, and the record of silent nodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from redis.cluster import ClusterNode
from redis.exceptions import ResponseError

from agentapi.redis.routes import waited_of

_PROBE_EVERY: Final = 1.0
"""Seconds between two attempts to reach a node that did not answer in time."""


@dataclass(slots=True)
class Command:
    """A command to send.

    Attributes:
        args: The arguments in redis-py's form.
        options: redis-py's options for the answer.
        script: The text of the script that the command calls by hash.
        replicas: The replicas that must have the write before it counts as done; see `Replicas`.
        asked: The node that a migrating slot has named for the next attempt.
    """

    args: Sequence[Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    script: str | None = None
    replicas: Replicas | None = None
    asked: ClusterNode | None = None


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many replicas must have a write, and how long to wait for them.

    Attributes:
        count: Number of replicas.
        milliseconds: Maximum wait.
    """

    count: int
    milliseconds: int

    def wait(self, key: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The commands that follow a write, in its pipeline."""
        mark = ("SET", waited_of(key), 1, "PX", 1000)
        return [(mark, {}), (("WAIT", self.count, self.milliseconds), {})]

    def missing(self, reached: Any) -> ResponseError | None:
        """The error for a write that too few replicas have."""
        if isinstance(reached, Exception) or int(reached) < self.count:
            return ResponseError(
                f"NOREPLICAS {reached} of {self.count} replicas have the write; the write is not "
                "undone, and repeating it is safe"
            )
        return None


class Silence:
    """Nodes that did not answer in time. Until a node answers again, only one call at a time tries
    it: the others would only wait, and a worker has few threads for that."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._lock = threading.Lock()

    def check(self, node: ClusterNode) -> None:
        """Raises:
        redis.ConnectionError: Another call is trying the node now, or has just done so.
        """
        if node.name not in self._since:
            return
        with self._lock:
            next_try = self._since.get(node.name)
            if next_try is None:
                return
            now = time.monotonic()
            if now < next_try:
                raise redis.ConnectionError(f"node {node.name} does not answer")
            self._since[node.name] = now + _PROBE_EVERY

    def first(self) -> str | None:
        """The name of a silent node."""
        return next(iter(tuple(self._since)), None)

    def begins(self, node: ClusterNode) -> None:
        """Record that a node did not answer in time."""
        with self._lock:
            self._since[node.name] = time.monotonic() + _PROBE_EVERY

    def ends(self, node: ClusterNode) -> None:
        """Record that a node answered."""
        if node.name in self._since:
            with self._lock:
                self._since.pop(node.name, None)
