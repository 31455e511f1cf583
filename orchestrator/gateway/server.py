"""Serving the gateway: refusals at the start, and an end that loses no stream."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from agentapi import Settings
from agentapi.errors import ConfigurationError
from agentapi.logs import line
from agentapi.redis.aio import connect
from orchestrator.gateway.access import is_loopback
from orchestrator.gateway.app import create_app
from orchestrator.gateway.http.bodies import BodyReader
from orchestrator.gateway.http.entrance import Entrance
from orchestrator.gateway.http.middleware import RequestGate
from orchestrator.gateway.http.protocol import ConnectionLimits, GuardedConfig
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.tenants.keys import KeyStore

log = logging.getLogger("agentapi.gateway")


class _Server(uvicorn.Server):
    """Ends the streams before it waits for their connections."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; a signal that was heeded is not raised again, so that the exit code is 0."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info(line("gateway.stopping"))
        self._gateway.stop_streams()
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; streams that are open then end with a place to resume from.

    Raises:
        ConfigurationError: A setting is not valid; the port is taken; or there are no keys and
            others than this machine could connect.
        StoreUnavailable: Redis is out of reach, and it is not known whether there are keys.
    """
    if not is_loopback(settings) and not settings.gateway_require_keys:
        asyncio.run(_refuse_without_keys(settings))
    # The producer's threads take turns with a busy event loop; at Python's 5 ms each, a thread
    # that answers Redis a few times would wait longer for its turns than for Redis.
    sys.setswitchinterval(0.0005)
    app = create_app(settings)
    listener = _listen(settings.gateway_host, settings.gateway_port)
    gateway: Gateway = app.state.gateway
    config = GuardedConfig(
        RequestGate(app, Entrance(gateway), BodyReader(settings)),
        ConnectionLimits(
            connections=settings.gateway_connections,
            head=settings.gateway_header_timeout,
            rest=settings.gateway_body_idle,
            stall=settings.gateway_stall,
        ),
        proxy_headers=bool(settings.gateway_proxies),
        forwarded_allow_ips=list(settings.gateway_proxies),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace)),
        timeout_keep_alive=75,
        server_header=False,
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info(line("gateway.listening", address=f"http://{shown}:{port}"))
    _Server(config, gateway).run(sockets=[listener])


async def _refuse_without_keys(settings: Settings) -> None:
    client = connect(settings, connections=1)
    try:
        made = await KeyStore(settings, client).exist()
    finally:
        await client.aclose()
    if not made:
        raise ConfigurationError(
            f"AGENTAPI_GATEWAY_HOST is {settings.gateway_host!r} and there are no keys: anybody "
            "who reaches this machine could talk to the agents. Make a key with `agentapi keys "
            "create TENANT`, or listen on 127.0.0.1"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port} (AGENTAPI_GATEWAY_HOST, AGENTAPI_GATEWAY_PORT): "
            f"{error.strerror}"
        ) from error
    listener.set_inheritable(False)
    return listener
