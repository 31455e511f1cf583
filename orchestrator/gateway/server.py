"""Serves the gateway: with checks before the start, and a shutdown that loses no stream."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from agentapi.errors import ConfigurationError
from agentapi.logs import line
from agentapi.redis.aio import connect
from agentapi.settings import warn_of_unknown_variables
from orchestrator.gateway.app import create_app
from orchestrator.gateway.http.authentication import Authenticator
from orchestrator.gateway.http.connection_limits import ConnectionLimits, GuardedConfig
from orchestrator.gateway.http.cors import with_cors
from orchestrator.gateway.http.middleware import RequestGate
from orchestrator.gateway.http.request_body import BodyReader
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.settings import GatewaySettings
from orchestrator.gateway.tenants.keys import KeyStore

log = logging.getLogger("agentapi.gateway")


class _Server(uvicorn.Server):
    """A server that ends the streams at shutdown before it waits for connections to close."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop. Unlike uvicorn's handler, it does not raise the signal again, so the exit code is
        0."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Freeze the loaded objects, which stay anyway. Otherwise each full garbage collection would
        # traverse them and block all streams and requests for about 60 ms.
        gc.collect()
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info(line("gateway.stopping"))
        # End the streams first: uvicorn waits for open connections, and streams would use up the
        # grace.
        self._gateway.stop_streams()
        await super().shutdown(sockets)


def serve(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT. Open streams then end with a position to resume from.

    Raises:
        ConfigurationError: A setting is not valid, the port is taken, or other machines could
            connect although there are no keys.
        StoreUnavailable: Redis is out of reach, so whether there are keys is not known.
    """
    warn_of_unknown_variables(type(settings), log)
    if not settings.is_loopback and not settings.gateway_require_keys:
        # Check before the port is open, so that no request can pass in between.
        asyncio.run(_refuse_without_keys(settings))
    # The producer's threads compete with a busy event loop for the interpreter. At Python's default
    # of 5 ms, a thread with a few commands would wait longer for its turn than for Redis.
    sys.setswitchinterval(0.0005)
    app = create_app(settings)
    listener = _listen(settings.gateway_host, settings.gateway_port)
    gateway: Gateway = app.state.gateway
    config = GuardedConfig(
        with_cors(
            RequestGate(app, Authenticator(gateway), BodyReader(settings)),
            settings.gateway_origins,
        ),
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


async def _refuse_without_keys(settings: GatewaySettings) -> None:
    client = connect(settings, connections=1)
    try:
        made = await KeyStore(settings, client).exist()
    finally:
        await client.aclose()
    if not made:
        raise ConfigurationError(
            f"AGENTAPI_GATEWAY_HOST is {settings.gateway_host!r}, but there are no keys: anyone "
            "who can reach this machine could use the agents. Create a key with `agentapi keys "
            "create TENANT`, or listen on 127.0.0.1"
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name the protocol. Without it Nagle's algorithm
    # holds an answer's body back for the client's delayed acknowledgement, about 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
