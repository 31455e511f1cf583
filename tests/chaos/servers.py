"""The servers of a random run: the store, the broker, and the network to them."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, Self

import redis

from agentapi import Settings
from agentapi.broker.wire import queue_names
from orchestrator.stack import start_valkey
from tests.chaos.disk import full_disk
from tests.chaos.loss import Loss
from tests.chaos.plan import Plan
from tests.chaos.proxy import Network, Proxies, Proxy
from tests.chaos.sentinels import Sentinels
from tests.chaos.shards import Shards
from tests.faults import flush_broker
from tests.system.rabbitmq import RabbitMQ


class Valkey:
    """One server, which comes back on its file and port.

    Attributes:
        url: For settings.
        server: Its process.
        losses: What failovers lost; there are none.
    """

    losses: Sequence[Loss] = ()

    def __init__(self, folder: Path, fsync: Literal["everysec", "always"] = "everysec") -> None:
        self._folder, self._fsync = folder, fsync
        self.server, self.url = start_valkey(folder, fsync=fsync)

    @property
    def master_url(self) -> str:
        """Where writes go."""
        return self.url

    def restart(self, away: float) -> None:
        """Kill it, and start it again some seconds later."""
        self.server.kill()
        time.sleep(away)
        self.server, _ = start_valkey(self._folder, port_in(self.url), fsync=self._fsync)

    def empty(self) -> None:
        """Delete everything."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def stop(self) -> None:
        """Stop it."""
        self.server.stop()


class Rabbit(RabbitMQ):
    """RabbitMQ, started; its stored messages come back with it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def restart(self, away: float) -> None:
        """Kill the node, and start it again some seconds later."""
        self.kill()
        time.sleep(away)
        self.start()

    def empty(self) -> None:
        """Delete all messages that no worker has taken."""
        self.purge(queue_names(Settings.model_fields["queues"].default))

    def cut_off(self) -> None:
        """End all connections; clients may come back at once."""
        self.control("close_all_connections", "chaos")


class Broker(Protocol):
    """A broker of its own."""

    url: str

    def restart(self, away: float) -> None:
        """Kill it, and start it again some seconds later."""

    def empty(self) -> None:
        """Delete the messages."""

    def stop(self) -> None:
        """Stop it."""


class Servers:
    """Store and broker, and the network to them.

    Attributes:
        url: Of the store, for settings.
        broker_url: Of the broker.
    """

    def __init__(self, plan: Plan) -> None:
        """Start them.

        Raises:
            Missing: RabbitMQ is not installed; says what to install.
        """
        self._broker = _broker(plan)
        self._proxies = Proxies() if plan.cuts else None
        try:
            self._store = _store(plan)
        except BaseException:
            if self._broker is not None:
                self._broker.stop()
            raise
        self.url = self._store.url
        self.broker_url = self._broker.url if self._broker is not None else self.url

    def __enter__(self) -> Self:
        if self._proxies is not None:
            self._proxies.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._proxies is not None:
            self._proxies.__exit__(None, None, None)
        self._store.stop()
        if self._broker is not None:
            self._broker.stop()

    @property
    def losses(self) -> Sequence[Loss]:
        """The failovers so far."""
        return self._store.losses

    @property
    def broker_faults(self) -> Sequence[str]:
        """What can happen to a broker of its own."""
        faults = ["killed", "away", "emptied"]
        return [*faults, "cut off"] if isinstance(self._broker, Rabbit) else faults

    def way_in(self) -> tuple[Mapping[str, str], list[Proxy]]:
        """How a new worker reaches them: variables for it, and the proxies on its way."""
        if self._proxies is None:
            return {}, []
        urls = {"AGENTAPI_BROKER_URL": self.broker_url}
        if isinstance(self._store, Valkey):
            # Others name their servers themselves.
            urls["AGENTAPI_REDIS_URL"] = self.url
        ways = {url: self._proxies.before(port_in(url)) for url in set(urls.values())}
        variables = {
            name: url.replace(f":{port_in(url)}/", f":{ways[url].port}/")
            for name, url in urls.items()
        }
        return variables, list(ways.values())

    def network(self, proxies: list[Proxy], state: Network) -> None:
        """Change what the network of a worker does."""
        assert self._proxies is not None
        for proxy in proxies:
            self._proxies.become(proxy, state)

    def restart_store(self, away: float) -> None:
        """Kill the store, and start it again on its file and port."""
        assert isinstance(self._store, Valkey)
        self._store.restart(away)

    def read_again(self) -> None:
        """What the store held must be in its file, where one server is the store."""
        if isinstance(self._store, Valkey):
            self._store.restart(0)

    def fill_disk(self, seconds: float) -> None:
        """The store cannot write its file for a time."""
        assert not isinstance(self._store, Shards)
        with full_disk(self._store.server, self._store.master_url):
            time.sleep(seconds)

    def fail_over(self, lag: float) -> None:
        """Kill a master whose replica has not got what was written for some seconds."""
        assert not isinstance(self._store, Valkey)
        if isinstance(self._store, Shards):
            self._store.fail_over_one(lag)
        else:
            self._store.fail_over(lag)

    def move_a_slot(self) -> None:
        """Give the slot of a partition to another shard."""
        assert isinstance(self._store, Shards)
        self._store.move_one()

    def stop_a_shard(self, seconds: float) -> None:
        """A primary stands still, and is not failed over."""
        assert isinstance(self._store, Shards)
        with self._store.one_stands_still():
            time.sleep(seconds)

    def restart_broker(self, away: float) -> None:
        """Kill the broker, and start it again some seconds later."""
        assert self._broker is not None
        self._broker.restart(away)

    def cut_off_broker(self) -> None:
        """End all connections to the broker."""
        assert isinstance(self._broker, Rabbit)
        self._broker.cut_off()

    def empty_broker(self) -> None:
        """Delete all messages."""
        if self._broker is None:
            assert not isinstance(self._store, Shards)
            flush_broker(self._store.master_url)
        else:
            self._broker.empty()


def _store(plan: Plan) -> Valkey | Sentinels | Shards:
    if plan.store == "cluster":
        return Shards(plan.folder / "servers", random.Random(plan.seed), plan.node_timeout)
    if plan.store == "sentinel":
        return Sentinels(plan.folder / "servers")
    return Valkey(plan.folder, fsync="always")


def _broker(plan: Plan) -> Broker | None:
    folder = plan.folder / "broker"
    if plan.broker == "rabbitmq":
        return Rabbit(folder)
    return Valkey(folder) if plan.broker == "valkey" else None


def port_in(url: str) -> int:
    """The port of a server's URL."""
    return int(url.rpartition(":")[2].partition("/")[0])
