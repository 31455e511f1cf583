"""A cluster of embedded Valkeys on this machine, whose nodes can be killed and slots moved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import redis

from agentapi.errors import ConfigurationError
from orchestrator.stack.processes import Child, free_port, stop_all
from orchestrator.stack.valkey import start_valkey

SLOTS: Final = 16384

Fsync: TypeAlias = Literal["everysec", "always"]

_PATIENCE: Final = 60.0
"""Seconds after which a step of the cluster counts as failed."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node as the cluster reports it.

    Attributes:
        id: Its name in the cluster.
        port: Where it listens.
        primary: The id of its primary; None if it is one itself.
        slots: The slots that it serves, as pairs of first and last slot.
    """

    id: str
    port: int
    primary: str | None
    slots: list[tuple[int, int]]

    def serves(self, slot: int) -> bool:
        """Whether it serves a slot."""
        return any(first <= slot <= last for first, last in self.slots)


class Cluster:
    """Primaries that share all slots, each with replicas.

    Attributes:
        host: The address of all nodes.
        password: Password of all nodes, if they need one.
        ports: Ports of all nodes, primaries first.
        url: The value for `AGENTAPI_REDIS_URL`.
    """

    host: str = "127.0.0.1"
    password: str | None = None

    def __init__(
        self,
        folder: Path,
        *,
        primaries: int = 3,
        replicas: int = 1,
        fsync: Fsync = "everysec",
        node_timeout: float = 15.0,
    ) -> None:
        """Start the cluster. Returns when all slots are served and all replicas are in sync.

        Args:
            folder: Folder for data and logs, with a subfolder for each node.
            primaries: Number of primaries.
            replicas: Number of replicas of each primary.
            fsync: When nodes write their files to disk.
            node_timeout: Seconds after which the cluster fails over from a silent node by itself,
                which `lose` waits for. The default is so long that this never happens on a busy
                machine; `fail_over` does not wait for it.

        Raises:
            ConfigurationError: It cannot be started. The message says why.
        """
        self._folder = folder
        self._fsync: Fsync = fsync
        self._timeout = node_timeout
        nodes = primaries * (1 + replicas)
        first = free_port(2 * nodes)
        self.ports = [*range(first, first + nodes)]
        self._bus = {port: port + nodes for port in self.ports}
        self._nodes: dict[int, Child] = {}
        try:
            for port in self.ports:
                self.start(port)
            self._join(self.ports[:primaries], self.ports[primaries:])
        except BaseException:
            self.stop()
            raise
        self.url = ";".join(f"redis+cluster://{self.host}:{port}" for port in self.ports)

    def start(self, port: int) -> None:
        """Start a stopped node with its earlier data."""
        folder = self._folder / f"node-{port}"
        self._nodes[port] = self.run(folder, port, self._options(port))

    def run(self, folder: Path, port: int, options: Mapping[str, str]) -> Child:
        """Start the server of a node; returns when it answers.

        Args:
            folder: Folder for its data and log.
            port: Where it listens.
            options: Server options that make it a node of this cluster.
        """
        child, _ = start_valkey(folder, port, fsync=self._fsync, options=options)
        return child

    def _options(self, port: int) -> dict[str, str]:
        return {
            "cluster-enabled": "yes",
            "cluster-port": str(self._bus[port]),
            "cluster-node-timeout": f"{self._timeout * 1000:.0f}",
            # A missing shard must not stop the others.
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
        }

    def client(self, port: int) -> redis.Redis:
        """A client of one node."""
        return redis.Redis(host=self.host, port=port, socket_timeout=10)

    @contextmanager
    def connected(self, port: int) -> Iterator[Any]:
        """A client of one node, closed at the end of the block."""
        client = self.client(port)
        try:
            yield client
        finally:
            client.close()

    def process(self, port: int) -> Child:
        """The process of a node."""
        return self._nodes[port]

    def nodes(self) -> list[Node]:
        """All nodes, as reported by one that runs."""
        for port, child in self._nodes.items():
            if child.exit_code is None:
                with self.connected(port) as node:
                    return _nodes(node.execute_command("CLUSTER NODES"))
        raise ConfigurationError("no node of the cluster runs")

    def primaries(self) -> list[Node]:
        """The nodes that serve slots."""
        return [node for node in self.nodes() if node.slots]

    def primary_of(self, slot: int) -> Node:
        """The primary that serves a slot."""
        return next(node for node in self.nodes() if node.serves(slot))

    def lose(self, primary: Node) -> Node:
        """Kill a primary with SIGKILL, and wait until the cluster promotes its replica by itself,
        about a second after the node timeout. Returns the promoted node; `start` restarts the
        killed node as its replica."""
        self.process(primary.port).kill()
        return self.successor(primary)

    def successor(self, primary: Node) -> Node:
        """Wait until the cluster promotes the replica of a primary that does not answer; returns
        the promoted node."""
        slot = primary.slots[0][0]

        def promoted() -> bool:
            return all(
                any(node.id != primary.id and node.serves(slot) for node in self._seen(port))
                for port in self._answering(primary.port)
            )

        wait_until(promoted, "the promotion of a replica", pause=0.1)
        return next(
            node
            for node in self._seen(next(self._answering(primary.port)))
            if node.id != primary.id and node.serves(slot)
        )

    def _answering(self, without: int) -> Iterator[int]:
        """Ports of the running nodes except one."""
        for port, child in self._nodes.items():
            if port != without and child.exit_code is None:
                yield port

    def fail_over(self, primary: Node) -> Node:
        """Kill a primary with SIGKILL and tell its replica to take over, without waiting for the
        node timeout. Returns the promoted node; `start` restarts the killed node as its replica."""
        replica = next(node for node in self.nodes() if node.primary == primary.id)
        self.process(primary.port).kill()
        with self.connected(replica.port) as client:

            def promoted() -> bool:
                if client.info("replication")["role"] == "master":
                    return True
                try:
                    client.execute_command("CLUSTER FAILOVER", "FORCE")
                except redis.ResponseError as refusal:
                    # It was promoted in the meantime.
                    if "replica" not in str(refusal):
                        raise
                return False

            wait_until(promoted, "the promotion of a replica", pause=0.2)
        wait_until(lambda: self._agree_on(replica.id), "the cluster's agreement")
        return next(node for node in self.nodes() if node.id == replica.id)

    def move_slot(self, slot: int, to: Node) -> int:
        """Move a slot with all its keys to another primary, while clients use it.

        Returns:
            How many keys were moved.
        """
        source = self.primary_of(slot)
        if source.id == to.id:
            return 0
        login = () if self.password is None else ("AUTH", self.password)
        moved = 0
        with self.connected(source.port) as old, self.connected(to.port) as new:
            new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
            old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", to.id)
            while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
                old.execute_command(
                    *("MIGRATE", self.host, to.port, "", 0, 10_000, "REPLACE"),
                    *login,
                    *("KEYS", *keys),
                )
                moved += len(keys)
            # Tell the new owner first, so that the slot always has an owner.
            new.execute_command("CLUSTER SETSLOT", slot, "NODE", to.id)
            old.execute_command("CLUSTER SETSLOT", slot, "NODE", to.id)
        return moved

    def in_step(self) -> bool:
        """Whether all replicas are in sync with their primaries."""
        for node in self.nodes():
            if node.primary is not None and self.process(node.port).exit_code is None:
                with self.connected(node.port) as client:
                    if client.info("replication").get("master_link_status") != "up":
                        return False
        return True

    def empty(self) -> None:
        """Delete all keys of all primaries."""
        for node in self.primaries():
            with self.connected(node.port) as client:
                client.flushall()

    def stop(self) -> None:
        """Stop all nodes."""
        stop_all(list(self._nodes.values()), 10)

    def _join(self, primaries: list[int], replicas: list[int]) -> None:
        for number, port in enumerate(primaries):
            with self.connected(port) as node:
                first, after = (SLOTS * n // len(primaries) for n in (number, number + 1))
                node.execute_command("CLUSTER ADDSLOTSRANGE", first, after - 1)
                # Distinct epochs avoid a conflict that the primaries would have to resolve first.
                node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for port in self.ports:
            with self.connected(port) as node:
                for other in self.ports:
                    if other != port:
                        node.execute_command("CLUSTER MEET", self.host, other, self._bus[other])
        wait_until(self._complete, "the nodes' discovery")
        names = {node.port: node.id for node in self.nodes()}
        for number, port in enumerate(replicas):
            with self.connected(port) as node:
                primary = names[primaries[number % len(primaries)]]
                node.execute_command("CLUSTER REPLICATE", primary)
        wait_until(self._served, "the cluster's slots")
        wait_until(self.in_step, "the replicas' first copies")

    def _complete(self) -> bool:
        return all(len(self._seen(port)) == len(self.ports) for port in self.ports)

    def _served(self) -> bool:
        """Whether every node knows every slot's owner and every replica."""
        replicas = len(self.ports) - len(self.primaries())
        return all(
            self._state(port) == "ok"
            and sum(1 + b - a for node in self._seen(port) for a, b in node.slots) == SLOTS
            and sum(node.primary is not None for node in self._seen(port)) == replicas
            for port in self.ports
        )

    def _agree_on(self, primary: str) -> bool:
        """Whether all running nodes see a node as a primary with slots."""
        return all(
            any(node.id == primary and node.slots for node in self._seen(port))
            for port, child in self._nodes.items()
            if child.exit_code is None
        )

    def _seen(self, port: int) -> list[Node]:
        with self.connected(port) as node:
            return _nodes(node.execute_command("CLUSTER NODES"))

    def _state(self, port: int) -> str:
        with self.connected(port) as node:
            return str(node.execute_command("CLUSTER INFO")["cluster_state"])


def wait_until(condition: Callable[[], bool], what: str, *, pause: float = 0.02) -> None:
    """Wait for a condition; fails after a minute."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise ConfigurationError(f"timeout while waiting for {what} in the cluster")
        time.sleep(pause)


def _nodes(reply: Any) -> list[Node]:
    return [
        Node(
            id=node["node_id"],
            port=int(address.rpartition(":")[2]),
            primary=None if node["master_id"] == "-" else node["master_id"],
            slots=[(int(span[0]), int(span[-1])) for span in node["slots"]],
        )
        for address, node in reply.items()
        if "handshake" not in node["flags"]
    ]
