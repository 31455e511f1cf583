"""What a forked process is: a worker, a gateway or a producer, and how it is told what to do.

All are real: Celery's worker, uvicorn's server. A thread beside them (the producer's own) answers
the runner's requests, one JSON object each, over a socket.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from agentapi import load_settings
from agentapi.supervision import Service
from tests.faultpoints.agents import AGENTS
from tests.faultpoints.archive import hurry
from tests.faultpoints.effects import Fault
from tests.faultpoints.injector import injector
from tests.faultpoints.patches import supervisors

CONTROL = "faults-control"
"""Name of the thread that answers the runner."""


class Control:
    """The process's end of the runner's socket."""

    def __init__(self, role: str, address: str) -> None:
        self._connection: Connection = Client(address, "AF_UNIX")
        self.send(role=role, pid=os.getpid())

    def send(self, **message: Any) -> None:
        self._connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """The next request. A runner that is gone ends this process."""
        try:
            request: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)
        return request

    def serve(self, **answers: Callable[[dict[str, Any]], Any]) -> None:
        """Answer requests until the process ends."""
        while True:
            request = self.receive()
            self.send(answer=answers[request["do"]](request))

    def in_background(self, **answers: Callable[[dict[str, Any]], Any]) -> None:
        threading.Thread(
            target=self.serve, kwargs={**_always(), **answers}, name=CONTROL, daemon=True
        ).start()

    def in_foreground(self, **answers: Callable[[dict[str, Any]], Any]) -> None:
        self.serve(**{**_always(), **answers})


def _always() -> dict[str, Callable[[dict[str, Any]], Any]]:
    def arm(request: dict[str, Any]) -> None:
        injector.arm([Fault.from_json(fault) for fault in request["plan"]])

    return {"arm": arm, "disarm": lambda _: injector.disarm(), "health": lambda _: health()}


def health() -> dict[str, Any]:
    """Threads and background services of this process."""
    services = [service for one in list(supervisors) for service in one._services]
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "services": [asdict(service.status()) for service in services if _started(service)],
    }


def _started(service: Service) -> bool:
    """Whether the service was started and not stopped."""
    work = getattr(service, "_thread", None) or getattr(service, "_task", None)
    return work is not None and getattr(work, "ident", 1) is not None and not service.stopping


def worker(control: Control) -> None:
    """Celery's worker, in the main thread."""
    from celery.signals import worker_ready

    from workers.app import create_app

    settings = load_settings()
    if settings.archive_url is not None:
        hurry()
    app = create_app(settings, AGENTS)
    pools: list[Any] = []

    def working(_: dict[str, Any]) -> dict[str, Any]:
        loop = app.runtime._loop.loop
        return {
            **health(),
            "running turns": len(app.runtime.running.all()),
            "jobs in flight": pools[0]._get_info()["in-flight"],
            "tasks of the loop": len(asyncio.all_tasks(loop)),
        }

    def ready(sender: Any, **_: Any) -> None:
        pools.append(sender.pool)
        control.in_background(health=working)
        control.send(ready=True)

    worker_ready.connect(ready)
    arguments = ["worker", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    main: Any = app.worker_main
    main([*arguments, "-n", f"worker{os.getpid()}@faults"])


def gateway(control: Control) -> None:
    """The HTTP gateway, in the main thread."""
    from agentapi.logs import configure_logging
    from orchestrator.gateway import serve
    from orchestrator.gateway.services import Gateway
    from orchestrator.gateway.settings import load_gateway_settings

    settings = load_gateway_settings()
    configure_logging(settings.log_level, settings.log_format)
    made: list[Gateway] = []
    start = Gateway.start

    def started(self: Gateway) -> None:
        made.append(self)
        loop = asyncio.get_running_loop()
        start(self)

        def serving(_: dict[str, Any]) -> dict[str, Any]:
            return {
                **health(),
                "subscriptions": len(getattr(self.follower, "_buffers", ())),
                "tasks of the loop": len(asyncio.all_tasks(loop)),
            }

        control.in_background(health=serving)
        control.send(ready=True)

    Gateway.start = started  # type: ignore[method-assign]
    serve(settings)


def producer(control: Control) -> None:
    """A producer that plays scenarios when told."""
    from tests.faultpoints.scenarios import Player

    player = Player(load_settings())
    control.send(ready=True)
    control.in_foreground(play=player.play)


ROLES: dict[str, Callable[[Control], None]] = {
    "worker": worker,
    "gateway": gateway,
    "producer": producer,
}


def become(role: str, address: str, log: str, fired: str, env: dict[str, str]) -> None:
    """In the child of a fork: be this, until the end."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    os.environ.update(env)
    injector.fired = os.open(fired, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        ROLES[role](Control(role, address))
    finally:
        # A process that ends in order leaves its counts.
        Path(f"{log}.{os.getpid()}").write_text(json.dumps(injector.disarm()))
