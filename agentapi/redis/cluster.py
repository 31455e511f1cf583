"""A client of Redis Cluster that behaves like the client of one server.

redis-py knows where slots are and holds the connections to each node. This module adds a pipeline
that takes scripts, is sent to its nodes in parallel, and returns each command's result separately,
so that an unavailable shard does not affect the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import redis
from redis.client import Pipeline
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.maint_notifications import MaintNotificationsConfig
from typing_extensions import override

from agentapi.logs import LogLine, frames_of
from agentapi.redis.commands import Command, Silence
from agentapi.redis.routes import key_of

log = logging.getLogger("agentapi.store")

SIDE_BY_SIDE: Final = 8
"""Maximum concurrent calls to one node, among calls that need several nodes."""

_PAUSES: Final = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Seconds before a command is sent again while its slot is migrating."""

_RECONNECTS: Final = 2
"""Retries while a node cannot be reached."""

_REFRESH_EVERY: Final = 0.1
"""Seconds between two updates of the cluster's slot map."""

_LOST: Final = (redis.ConnectionError, redis.TimeoutError)

Answers: TypeAlias = list[Any]
"""The answer of each command, or the error that it failed with."""


class ClusterClient(redis.Redis):
    """Accepts commands and pipelines like `redis.Redis`. Safe to share between threads."""

    def __init__(
        self, nodes: Sequence[tuple[str, int]], options: Mapping[str, Any], patience: float
    ) -> None:
        """Connects when first used.

        Args:
            nodes: Host and port of some nodes; the others are found.
            options: Options of every connection.
            patience: Seconds for which a command waits for a migrating slot.
        """
        # The connections of the base class are never used.
        super().__init__()
        self._start = list(nodes)
        self._options = dict(options)
        self._patience = patience
        self._map: RedisCluster | None = None
        self._refreshed = 0.0
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._silence = Silence()
        self._threads: dict[str, ThreadPoolExecutor] = {}

    @override
    def execute_command(self, *args: Any, **options: Any) -> Any:
        [answer] = self.send([Command(args, options)])
        if isinstance(answer, BaseException):
            raise answer
        return answer

    @override
    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> ClusterPipeline:
        """A pipeline. All commands of a transaction must be in one slot."""
        return ClusterPipeline(self, transaction)

    def primaries(self) -> Sequence[ClusterNode]:
        """The nodes that serve slots."""
        known: Any = self._known()
        found: Sequence[ClusterNode] = known.get_primaries()
        return found

    def send(self, commands: Sequence[Command], *, patience: float | None = None) -> Answers:
        """Send commands to their nodes in parallel. Errors of single commands are returned, not
        raised.

        Args:
            commands: Commands of one slot are executed in this order.
            patience: Seconds after which a node's commands end with a timeout.
        """
        answers: Answers = [None] * len(commands)
        left = list(range(len(commands)))
        deadline = time.monotonic() + self._patience
        tries, lost = 0, 0
        while left:
            groups, failed = self._by_node(commands, left, lost)
            for number, error in failed.items():
                answers[number] = error
            found = self._ask_all(groups, commands, patience)
            again: list[int] = []
            for number, answer in found.items():
                answers[number] = answer
                if self._passes(answer, commands[number], lost):
                    again.append(number)
            left = sorted(again) if time.monotonic() < deadline else []
            if left:
                lost += any(isinstance(answers[number], _LOST) for number in left)
                time.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
                tries += 1
        return answers

    @override
    def close(self) -> None:
        with self._lock:
            known: Any = self._map
            self._map = None
            threads, self._threads = self._threads, {}
        for pool in threads.values():
            pool.shutdown(wait=False, cancel_futures=True)
        if known is not None:
            known.close()
            known.disconnect_connection_pools()

    def _known(self) -> RedisCluster:
        known = self._map
        if known is not None:
            return known
        with self._lock:
            if self._map is None:
                make: Any = RedisCluster
                node: Any = ClusterNode
                try:
                    self._map = make(
                        startup_nodes=[node(host, port) for host, port in self._start],
                        require_full_coverage=False,
                        maint_notifications_config=MaintNotificationsConfig(enabled=False),
                        **self._options,
                    )
                except RedisClusterException as error:
                    raise redis.ConnectionError(str(error)) from error
            return self._map

    def refresh(self) -> None:
        """Update the cluster's slot map, unless another thread is doing so or has just done so."""
        known = self._known()
        if not self._refreshing.acquire(blocking=False):
            return
        try:
            if time.monotonic() - self._refreshed < _REFRESH_EVERY:
                return
            known.nodes_manager.initialize(last_failed_node_name=self._silence.first())
        except RedisClusterException as error:
            # All known nodes are gone; the URL's host names may resolve to others by now.
            with self._lock:
                if self._map is known:
                    self._map = None
            raise redis.ConnectionError(str(error)) from error
        finally:
            self._refreshed = time.monotonic()
            self._refreshing.release()

    def _by_node(
        self, commands: Sequence[Command], numbers: Sequence[int], lost: int
    ) -> tuple[dict[ClusterNode, list[int]], dict[int, Exception]]:
        groups: dict[ClusterNode, list[int]] = defaultdict(list)
        failed: dict[int, Exception] = {}
        anchor: ClusterNode | None = None
        # Commands without a key last: a clock, for example, is read where the key beside it is.
        for number in sorted(numbers, key=lambda number: key_of(commands[number].args) is None):
            try:
                node = self._node_of(commands[number], anchor, lost)
                groups[node].append(number)
                anchor = anchor or node
            except redis.RedisError as error:
                failed[number] = error
        return groups, failed

    def _node_of(self, command: Command, anchor: ClusterNode | None, lost: int) -> ClusterNode:
        if command.asked is not None:
            return command.asked
        key = key_of(command.args)
        if key is None:
            # After a lost answer another one: any node can say.
            primaries = self.primaries()
            return anchor or primaries[lost % len(primaries)]
        return self.node_of_slot(key_slot(key))

    def address_of(self, key: str) -> str | None:
        """The address of a key's primary, as far as it is known. Asks no server."""
        known = self._map
        try:
            node = known.nodes_manager.get_node_from_slot(key_slot(key.encode())) if known else None
        except RedisClusterException:
            return None
        return None if node is None else str(node.name)

    def node_of_slot(self, slot: int) -> ClusterNode:
        """The primary that serves a slot.

        Raises:
            ClusterDownError: None does.
            redis.ConnectionError: No node can be reached.
        """
        known = self._known()
        try:
            return known.nodes_manager.get_node_from_slot(slot)
        except RedisClusterException:
            self.refresh()
        try:
            return self._known().nodes_manager.get_node_from_slot(slot)
        except RedisClusterException as error:
            raise ClusterDownError(f"CLUSTERDOWN no node serves slot {slot}") from error

    def _ask_all(
        self,
        groups: Mapping[ClusterNode, Sequence[int]],
        commands: Sequence[Command],
        patience: float | None,
    ) -> dict[int, Any]:
        if len(groups) == 1 and patience is None:
            [(node, numbers)] = groups.items()
            return dict(zip(numbers, self._ask(node, commands, numbers), strict=True))
        waiting: list[tuple[ClusterNode, Sequence[int], Future[Answers]]] = [
            (node, numbers, self._threads_of(node).submit(self._ask, node, commands, numbers))
            for node, numbers in groups.items()
        ]
        until = None if patience is None else time.monotonic() + patience
        found: dict[int, Any] = {}
        for node, numbers, answers in waiting:
            try:
                left = None if until is None else max(0.0, until - time.monotonic())
                found.update(zip(numbers, answers.result(left), strict=True))
            except TimeoutError:
                if not answers.cancel():
                    answers.add_done_callback(_report)
                self._silence.begins(node)
                error = redis.TimeoutError("a shard does not answer in time")
                found.update(dict.fromkeys(numbers, error))
        return found

    def _threads_of(self, node: ClusterNode) -> ThreadPoolExecutor:
        """Separate threads for each node, because a silent node occupies all of its threads."""
        threads = self._threads.get(node.name)
        if threads is None:
            with self._lock:
                threads = self._threads.setdefault(
                    node.name, ThreadPoolExecutor(SIDE_BY_SIDE, "agentapi-shard")
                )
        return threads

    def _ask(
        self, node: ClusterNode, commands: Sequence[Command], numbers: Sequence[int]
    ) -> Answers:
        """Execute commands on a node; a lost connection is the answer to all of them."""
        try:
            with self.watched(node):
                return self._carry_out(client_of(node), [commands[n] for n in numbers])
        except redis.RedisError as error:
            return [error] * len(numbers)

    @contextmanager
    def watched(self, node: ClusterNode) -> Iterator[None]:
        """Talk to a node unless it is silent, and record whether it answers in time."""
        self._silence.check(node)
        try:
            yield
        except redis.TimeoutError:
            self._silence.begins(node)
            raise
        self._silence.ends(node)

    def _carry_out(self, client: redis.Redis, commands: Sequence[Command]) -> Answers:
        texts = {command.script for command in commands if command.script is not None}
        answers = _carry_out(client, commands)
        if texts and any(isinstance(answer, NoScriptError) for answer in answers):
            # A node that is new, or was emptied. Those after the first were not carried out
            # either, or by another's load in between: each script may be repeated.
            for text in texts:
                client.script_load(text)
            answers = _carry_out(client, commands)
        return answers

    def _passes(self, answer: Any, command: Command, lost: int) -> bool:
        """Whether a command must be sent again; learns from the answer to which node."""
        if not isinstance(answer, Exception):
            return False
        command.asked = None
        match answer:
            case MovedError():
                self._moved(answer)
                return True
            case AskError():
                node = self._known().nodes_manager.get_node(answer.host, answer.port)
                # A node that is new to us is on the map after the next update.
                command.asked = node if node is not None and node.redis_connection else None
                return True
            case TryAgainError():
                return True
            case redis.TimeoutError():
                # The caller has waited long enough. The next one may find a new primary.
                self._look_again()
                return False
            case ReadOnlyError() | redis.ConnectionError() | ClusterDownError():
                self._look_again()
                return lost < _RECONNECTS
            case _:
                return False

    def _moved(self, answer: MovedError) -> None:
        try:
            self._known().nodes_manager.move_slot(answer)
        except KeyError:
            # No node served the slot when the map was made.
            self._look_again()

    def _look_again(self) -> None:
        try:
            self.refresh()
        except redis.ConnectionError:
            return


class ClusterPipeline(Pipeline):
    """Buffers commands; `execute` sends them to their nodes in parallel."""

    def __init__(self, client: ClusterClient, transaction: bool) -> None:
        callbacks = client.response_callbacks
        super().__init__(client.connection_pool, callbacks, transaction, None)
        self._client = client
        self._transaction = transaction

    @override
    def execute(self, raise_on_error: bool = True) -> Answers:
        stack, self.command_stack = self.command_stack, []
        commands = [Command(args, options) for args, options in stack]
        if self._transaction and commands:
            return self._together(commands)
        answers = self._client.send(commands)
        error = next((a for a in answers if isinstance(a, Exception)), None)
        if raise_on_error and error is not None:
            raise error
        return answers

    def execute_each(self, patience: float) -> Answers:
        """Send the commands. An unavailable shard does not hold up the others' answers.

        Args:
            patience: Seconds to wait for a shard.

        Returns:
            The answer of each command, or the error that it failed with.

        Raises:
            redis.RedisError: All of them failed.
        """
        stack, self.command_stack = self.command_stack, []
        commands = [Command(args, options) for args, options in stack]
        answers = self._client.send(commands, patience=patience)
        if answers and all(isinstance(answer, redis.RedisError) for answer in answers):
            raise answers[0]
        return answers

    def _together(self, commands: Sequence[Command]) -> Answers:
        for last in (False, True):
            node = self._client.node_of_slot(key_slot(key_of(commands[0].args) or b""))
            pipeline = client_of(node).pipeline(transaction=True)
            pipeline.command_stack = [(command.args, command.options) for command in commands]
            try:
                return pipeline.execute()
            except (redis.ConnectionError, AskError, ReadOnlyError):
                if last:
                    raise
                self._client.refresh()
        raise AssertionError


def nodes_of(client: redis.Redis) -> Iterator[redis.Redis]:
    """A client of each server that has keys: the single server, or each primary of a cluster."""
    if isinstance(client, ClusterClient):
        yield from (client_of(node) for node in client.primaries())
    else:
        yield client


def client_of(node: ClusterNode) -> redis.Redis:
    """The connections to a node.

    Raises:
        redis.ConnectionError: A migrating slot has just named it; the next update of the map finds
            it.
    """
    client: redis.Redis | None = node.redis_connection
    if client is None:
        raise redis.ConnectionError(f"node {node.name} is new and not connected yet")
    return client


def _carry_out(client: redis.Redis, commands: Sequence[Command]) -> Answers:
    """Execute commands on one node, in one round trip."""
    if len(commands) == 1 and commands[0].asked is None and commands[0].replicas is None:
        try:
            send: Any = client.execute_command
            return [send(*commands[0].args, **commands[0].options)]
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except ResponseError as error:
            return [error]
    pipeline = client.pipeline(transaction=False)
    places = []
    replicas = next((command.replicas for command in commands if command.replicas), None)
    for command in commands:
        if command.asked is not None:
            pipeline.command_stack.append((("ASKING",), {}))
        places.append(len(pipeline.command_stack))
        pipeline.command_stack.append((command.args, command.options))
    if replicas is not None:
        key = key_of(commands[-1].args) or b""
        pipeline.command_stack += replicas.wait(key.decode())
    answers = pipeline.execute(raise_on_error=False)
    missing = replicas.missing(answers[-1]) if replicas is not None else None
    return [
        missing
        if missing is not None and command.replicas and not _failed(answers[place])
        else answers[place]
        for command, place in zip(commands, places, strict=True)
    ]


def _report(answers: Future[Answers]) -> None:
    """The answers of an abandoned call are not read, so errors in our own code are logged here."""
    error = answers.exception()
    if error is not None:
        log.error(LogLine("shard.fault", {"error": type(error).__name__}, frames_of(error)))


def _failed(answer: Any) -> bool:
    return isinstance(answer, Exception)
