"""Valkey, workers, the gateway and Flower together."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from agentapi import Settings, load_settings
from agentapi.errors import ConfigurationError
from agentapi.redis.connection import connect, translate_errors
from orchestrator.broker import BROKER_ERRORS, broker_unavailable, producer_app
from orchestrator.stack.processes import Child, free_port, stop_all
from orchestrator.stack.valkey import start_valkey
from orchestrator.stack.worker_command import worker_command


class Stack:
    """All processes on one machine, started in order and stopped in the reverse order.

    Attributes:
        folder: Folder for data and logs.
        redis_url: URL of the server that all processes use.
        settings: Settings for producers that talk to this stack.
        workers: The worker processes.
        flower_url: Flower's address, or None without Flower.
        flower_auth: User and password for Flower's pages and API.
        gateway_url: The gateway's address, or None without a gateway.
    """

    def __init__(
        self,
        folder: Path,
        *,
        agents: Sequence[str] = (),
        workers: int = 2,
        flower: bool = True,
        gateway: bool = False,
        redis_url: str | None = None,
        env: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        """Describe a stack; `start`, or ``with``, starts it.

        Args:
            folder: Folder for data and logs; created if missing.
            agents: Modules that define agents.
            workers: Number of worker processes.
            flower: Whether to start Flower.
            gateway: Whether to start the gateway.
            redis_url: URL of a running server; an embedded one is started when not given.
            env: Environment variables for the workers.
            settings: Settings by field name for workers and producers.
        """
        self.folder = folder
        self._agents = agents
        self._count = workers
        self._started = 0
        self._places: dict[str, int] = {}
        self._with_flower = flower
        self._with_gateway = gateway
        self._own_redis = redis_url
        self._env = dict(env or {})
        self._overrides = settings
        self.redis_url = redis_url or ""
        self.flower_url: str | None = None
        self.flower_auth = ("agentapi", secrets.token_urlsafe(12))
        self.valkey: Child | None = None
        self.workers: list[Child] = []
        self.flower: Child | None = None
        self.gateway_url: str | None = None
        self.gateway: Child | None = None

    def start(self) -> Self:
        """Start everything, and wait until all processes answer.

        Raises:
            ConfigurationError: A process does not start. The message shows the end of its log.
            StoreUnavailable: The given server cannot be reached.
            BrokerUnavailable: The broker was lost while the workers started.
        """
        try:
            if self._own_redis is None:
                self.valkey, self.redis_url = start_valkey(self.folder)
            else:
                self._check_redis()
            for _ in range(self._count):
                self.start_worker()
            if self._with_flower:
                self._start_flower()
            if self._with_gateway:
                self.start_gateway()
            self.wait_for_workers(self._count)
            if self._with_gateway:
                self.wait_for_gateway()
        except BaseException:
            self.stop()
            # Otherwise half a stack would keep running with nobody to stop it.
            raise
        return self

    def _check_redis(self) -> None:
        """Check the server before any process starts, because workers would wait for it
        silently."""
        with closing(connect(self.settings)) as client, translate_errors(self.redis_url):
            client.ping()

    @property
    def settings(self) -> Settings:
        """Settings for producers that talk to this stack."""
        servers = {"redis_url": self.redis_url, "broker_url": self.redis_url}
        return load_settings(**{**servers, **self._overrides})

    @property
    def console_url(self) -> str | None:
        """The console's address, or None without a gateway."""
        return f"{self.gateway_url}/console" if self.gateway_url else None

    @property
    def flower_for_people(self) -> str | None:
        """Flower's address and login, or None without Flower."""
        if self.flower_url is None:
            return None
        user, password = self.flower_auth
        return f"{self.flower_url} (user {user}, password {password})"

    @property
    def children(self) -> list[Child]:
        """All processes that were started."""
        return [child for child in (self.valkey, *self.workers, self.flower, self.gateway) if child]

    def start_worker(self) -> Child:
        """Start one more worker process; returns before it is ready."""
        worker = self._worker(place=self._started)
        self.workers.append(worker)
        return worker

    def replace_worker(self, ended: Child) -> Child:
        """Start a worker to replace one that has ended; returns before it is ready."""
        at = self.workers.index(ended)
        self.workers[at] = self._worker(place=self._places[ended.name])
        return self.workers[at]

    def _worker(self, place: int) -> Child:
        """Start a worker.

        Args:
            place: Determines its port for metrics, if workers have any.
        """
        # Numbers are never reused, because leases may still name a worker that died.
        self._started += 1
        name = f"worker{self._started}"
        self._places[name] = place
        first = self.settings.metrics_port
        metrics = {"AGENTAPI_METRICS_PORT": str(first + place)} if first else {}
        return Child(
            name,
            worker_command(name),
            log=self.folder / "logs" / f"{name}.log",
            env={**self._environment(), **metrics},
        )

    def _environment(self) -> dict[str, str]:
        variables = {
            "AGENTAPI_REDIS_URL": self.redis_url,
            "AGENTAPI_BROKER_URL": self.redis_url,
            "PYTHONUNBUFFERED": "1",
        }
        if self._agents:
            variables["AGENTAPI_AGENTS"] = ",".join(self._agents)
        for name, value in self._overrides.items():
            variables[f"AGENTAPI_{name.upper()}"] = str(value)
        return {**variables, **self._env}

    def _start_flower(self) -> None:
        port = free_port()
        self.flower_url = f"http://127.0.0.1:{port}"
        self.flower = Child(
            "flower",
            [
                *(sys.executable, "-m", "celery"),
                # Not passed as --broker: every user of the machine can read a command's arguments.
                *("-A", "orchestrator.stack.flower_app", "flower"),
                f"--port={port}",
            ],
            log=self.folder / "logs" / "flower.log",
            env={
                **self._environment(),
                "FLOWER_ADDRESS": "127.0.0.1",
                # Any website can make a browser send requests to a server on this machine, but it
                # does not know this password.
                "FLOWER_BASIC_AUTH": ":".join(self.flower_auth),
            },
        )

    def start_gateway(self) -> Child:
        """Start the gateway, at its earlier address if it had one. Does not wait for it."""
        port = urlsplit(self.gateway_url).port if self.gateway_url else free_port()
        self.gateway_url = f"http://127.0.0.1:{port}"
        self.gateway = Child(
            "gateway",
            [sys.executable, "-m", "orchestrator.cli.main", "gateway"],
            log=self.folder / "logs" / "gateway.log",
            env={
                **self._environment(),
                "AGENTAPI_GATEWAY_HOST": "127.0.0.1",
                "AGENTAPI_GATEWAY_PORT": str(port),
                # The gateway asks the workers for their agents, so it need not import the modules.
                "AGENTAPI_AGENTS": "",
                "PYTHONWARNINGS": "",
            },
        )
        return self.gateway

    def wait_for_gateway(self, timeout: float = 180.0) -> None:
        """Wait until the gateway answers.

        Raises:
            ConfigurationError: A process has ended, or the time is up.
        """
        deadline = time.monotonic() + timeout
        while True:
            for child in self.children:
                child.check()
            try:
                if httpx2.get(f"{self.gateway_url}/healthz", timeout=2).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"the gateway did not answer within {timeout:g} s; its log is in "
                    f"{self.folder / 'logs'}"
                )
            time.sleep(0.05)

    def wait_for_workers(self, count: int, timeout: float = 180.0) -> None:
        """Wait until `count` workers answer.

        Raises:
            ConfigurationError: A process has ended, or the time is up.
            BrokerUnavailable: The broker cannot be reached.
        """
        deadline = time.monotonic() + timeout
        app = producer_app(self.settings)
        try:
            while True:
                for child in self.children:
                    child.check()
                try:
                    answers = app.control.ping(timeout=0.5, limit=count)
                except BROKER_ERRORS as error:
                    raise broker_unavailable(self.settings, error) from error
                if len(answers) >= count:
                    return
                if time.monotonic() > deadline:
                    raise ConfigurationError(
                        f"{len(answers)} of {count} workers answered within {timeout:g} s; "
                        f"their logs are in {self.folder / 'logs'}"
                    )
        finally:
            app.close()

    def stop(self) -> None:
        """Stop everything that was started, Valkey last, since the others still write to it."""
        stop_all([child for child in (self.gateway, *self.workers, self.flower) if child])
        if self.valkey is not None:
            self.valkey.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
