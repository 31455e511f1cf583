"""The servers of a random run: one Valkey, or more when the plan needs them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Self

import redis

from orchestrator.stack import Child, start_valkey
from tests.chaos.disk import full_disk
from tests.chaos.plan import Plan
from tests.chaos.proxy import Network, Proxies, Proxy
from tests.chaos.sentinels import Sentinels
from tests.faults import flush_broker


class Servers:
    """Store and broker, and the network to them.

    Attributes:
        url: Of the store, for settings.
        broker_url: Of the broker.
        sentinels: Who decides where the store is, if there are any.
    """

    def __init__(self, plan: Plan) -> None:
        self._folder = plan.folder
        self._apart = plan.broker_outages > 0
        self._store: Child | None = None
        self._broker: Child | None = None
        self._proxies = Proxies() if plan.cuts else None
        self.sentinels = Sentinels(plan.folder / "servers") if plan.failovers else None
        if self.sentinels is not None:
            self.url = self.sentinels.url
        else:
            self._store, self.url = start_valkey(plan.folder, fsync="always")
        self.broker_url = self.url
        if self._apart:
            self._broker, self.broker_url = start_valkey(plan.folder / "broker")

    def __enter__(self) -> Self:
        if self._proxies is not None:
            self._proxies.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._proxies is not None:
            self._proxies.__exit__(None, None, None)
        for server in (self._store, self._broker, self.sentinels):
            if server is not None:
                server.stop()

    def way_in(self) -> tuple[Mapping[str, str], list[Proxy]]:
        """How a new worker reaches them: variables for it, and the proxies on its way."""
        if self._proxies is None:
            return {}, []
        urls = {"AGENTAPI_REDIS_URL": self.url, "AGENTAPI_BROKER_URL": self.broker_url}
        ports = {url: self._proxies.before(port_in(url)) for url in set(urls.values())}
        variables = {name: f"redis://127.0.0.1:{ports[url].port}/0" for name, url in urls.items()}
        return variables, list(ports.values())

    def network(self, proxies: list[Proxy], state: Network) -> None:
        """Change what the network of a worker does."""
        assert self._proxies is not None
        for proxy in proxies:
            self._proxies.become(proxy, state)

    def restart_store(self, away: float) -> None:
        """Kill the store, and start it again on its file and port."""
        assert self._store is not None
        self._store.kill()
        time.sleep(away)
        self._store, _ = start_valkey(self._folder, port_in(self.url), fsync="always")

    def fill_disk(self, seconds: float) -> None:
        """The store cannot write its file for a time."""
        server, url = self._store, self.url
        if self.sentinels is not None:
            server, url = self.sentinels.server, self.sentinels.master_url
        assert server is not None
        with full_disk(server, url):
            time.sleep(seconds)

    def restart_broker(self, away: float) -> None:
        """Kill the broker, and start it again on its file and port."""
        assert self._broker is not None
        self._broker.kill()
        time.sleep(away)
        self._broker, _ = start_valkey(self._folder / "broker", port_in(self.broker_url))

    def empty_broker(self) -> None:
        """Delete everything of Celery's."""
        if not self._apart:
            url = self.sentinels.master_url if self.sentinels is not None else self.url
            flush_broker(url)
            return
        with redis.Redis.from_url(self.broker_url) as client:
            client.flushall()


def port_in(url: str) -> int:
    """The port of a server's URL."""
    return int(url.rpartition(":")[2].partition("/")[0])
