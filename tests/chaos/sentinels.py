"""A master, its replica and three sentinels; failovers that lose what the replica had not got."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, Final

import redis

from orchestrator.stack import Child, start_valkey
from orchestrator.stack.processes import free_port
from orchestrator.stack.valkey import server_binary
from tests.chaos.loss import Loss
from tests.faults import until

SENTINELS: Final = 3
PATIENCE: Final = 15
"""Seconds after which sentinels would notice by themselves that the master is gone."""

MASTER: Final = "mymaster"


class Sentinels:
    """Two servers of which one is the master, and who decides which.

    Attributes:
        url: For settings.
        losses: The failovers so far.
    """

    def __init__(self, folder: Path) -> None:
        """Start them; returns when the replica is in step."""
        first = free_port(2 + SENTINELS)
        self._folders = {port: folder / f"server-{port}" for port in (first, first + 1)}
        self._servers: dict[int, Child] = {}
        self._sentinels: list[Child] = []
        self.losses: list[Loss] = []
        try:
            for port in self._folders:
                self._start(port)
            self.master, replica = self._folders
            client(replica).replicaof("127.0.0.1", self.master)
            until(lambda: in_step(replica), 60, "the replica's first copy")
            ports = [*range(first + 2, first + 2 + SENTINELS)]
            for number, port in enumerate(ports):
                self._sentinels.append(self._start_sentinel(folder / f"sentinel{number}", port))
            self._ports = ports
            until(self._know_each_other, 60, "the sentinels' discovery")
        except BaseException:
            self.stop()
            raise
        self.url = ";".join(f"sentinel://127.0.0.1:{port}" for port in ports)

    @property
    def server(self) -> Child:
        """The process of the master."""
        return self._servers[self.master]

    @property
    def master_url(self) -> str:
        """Where the master is now."""
        return f"redis://127.0.0.1:{self.master}/0"

    def fail_over(self, lag: float) -> Loss:
        """Kill the master when its replica has been cut off for some time; both are there after.

        Args:
            lag: Seconds in which all that is written is lost.
        """
        old = self.master
        [new] = [port for port in self._folders if port != old]
        until(lambda: in_step(new), 60, "the replica's copy")
        with client(old) as master, client(new) as replica:
            cut = caught_up(master, replica)
            master.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
            master.execute_command("CLIENT", "KILL", "TYPE", "REPLICA")
            time.sleep(lag)
            # On a busy machine nothing may have been written yet.
            until(lambda: offset(master) > offset(replica), 60, "a write that gets lost")
            bytes_lost = offset(master) - offset(replica)
            self._servers[old].kill()
            killed = time.monotonic()
            until(self._ask_for_failover, 60, "a sentinel's consent")
            until(lambda: replica.info("replication")["role"] == "master", 60, "the promotion")
            until(lambda: self._agree_on(new), 60, "the sentinels' agreement")
        self.master = new
        loss = Loss(cut=cut, killed=killed, served=time.monotonic(), bytes_lost=bytes_lost)
        self.losses.append(loss)
        # On an empty disk, like a new machine: it copies everything from the new master.
        shutil.rmtree(self._folders[old])
        self._start(old)
        client(old).replicaof("127.0.0.1", new)
        return loss

    def stop(self) -> None:
        """Stop all."""
        for child in (*self._sentinels, *self._servers.values()):
            child.stop()

    def _start(self, port: int) -> None:
        self._servers[port], url = start_valkey(self._folders[port], port, fsync="always")
        with redis.Redis.from_url(url) as server:
            server.config_set("repl-diskless-sync-delay", 0)

    def _start_sentinel(self, folder: Path, port: int) -> Child:
        folder.mkdir(parents=True)
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder.resolve()}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {self.master} 2\n"
            # So long that a machine that is busy never makes a failover that nobody planned.
            f"sentinel down-after-milliseconds {MASTER} {PATIENCE * 1000}\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
        )
        command = [str(server_binary()), str(config), "--sentinel"]
        return Child(folder.name, command, log=folder / "sentinel.log")

    def _ask_for_failover(self) -> bool:
        try:
            with client(self._ports[0]) as sentinel:
                return bool(sentinel.execute_command("SENTINEL", "FAILOVER", MASTER))
        except redis.ResponseError as refusal:
            # It is at it, or has not heard from the replica yet.
            return "already in progress" in str(refusal)

    def _know_each_other(self) -> bool:
        return all(
            len(seen(port, "sentinel_slaves")) == 1
            and len(seen(port, "sentinel_sentinels")) == SENTINELS - 1
            for port in self._ports
        )

    def _agree_on(self, port: int) -> bool:
        return all(
            seen(sentinel, "sentinel_get_master_addr_by_name")[1:] == (port,)
            for sentinel in self._ports
        )


def client(port: int) -> redis.Redis:
    """A client of a server on this machine."""
    return redis.Redis(port=port, socket_timeout=10)


def seen(port: int, question: str) -> Any:
    """What a sentinel says about the master; nothing when it is not there yet."""
    with redis.Redis(port=port, socket_timeout=5) as sentinel:
        try:
            return getattr(sentinel, question)(MASTER) or ()
        except redis.ConnectionError:
            return ()


def in_step(port: int) -> bool:
    """Whether a replica follows its master."""
    with client(port) as replica:
        return bool(replica.info("replication").get("master_link_status") == "up")


def caught_up(master: redis.Redis, replica: redis.Redis) -> float:
    """Wait until a replica has all that its master has now; returns when that was, monotonic."""
    now, written = time.monotonic(), offset(master)
    until(lambda: offset(replica) >= written, 60, "the replica's copy")
    return now


def offset(server: redis.Redis) -> int:
    """How far a server's copy of the replication stream goes."""
    found = server.info("replication")
    return int(found.get("slave_repl_offset", found["master_repl_offset"]))
