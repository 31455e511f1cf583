"""The port on which a process serves its metrics."""

from __future__ import annotations

import errno
import logging
import select
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from typing_extensions import override

from agentapi.errors import ConfigurationError
from agentapi.extras import needs_extra
from agentapi.logs import line
from agentapi.metrics.recorder import NoMetrics, Recorder, install
from agentapi.supervision import Service, Supervisor

log = logging.getLogger("agentapi.metrics")

Page: TypeAlias = tuple[str, bytes]
"""The status and the JSON body of a response."""

PATIENCE: Final = 5.0
"""Seconds that a client has to send its request, and to read the response."""

LOOK: Final = 0.5
"""Seconds between two checks whether the server must stop."""


class MetricsServer:
    """Serves ``GET /metrics`` and the given JSON pages in a thread.

    It has no authentication, so it listens on loopback unless configured otherwise. Its failure
    never ends the process.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        setting: str,
        collectors: Callable[[], Iterable[Any]] = tuple,
        pages: Mapping[str, Callable[[], Page]] | None = None,
        waits: bool = False,
    ) -> None:
        """Bind the port.

        Args:
            host: Address to listen on.
            port: The port; 0 for a free one.
            setting: The variable that sets the port, for errors.
            collectors: Returns further collectors of prometheus_client.
            pages: Answers other paths. It is called in the request's thread.
            waits: Whether to wait while another process still holds the port.

        Raises:
            ConfigurationError: The port cannot be bound, or the extra is not installed.
        """
        with needs_extra("metrics", "serving metrics"):
            from prometheus_client import (
                GC_COLLECTOR,
                PLATFORM_COLLECTOR,
                PROCESS_COLLECTOR,
                CollectorRegistry,
                make_wsgi_app,
            )
        from agentapi.metrics.prometheus import PrometheusRecorder

        registry = CollectorRegistry(auto_describe=False)
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR, *collectors()):
            registry.register(collector)
        self.recorder: Recorder = PrometheusRecorder(registry)
        metrics: Any = make_wsgi_app(registry)

        def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/metrics" and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
                found: Iterable[bytes] = metrics(environ, start_response)
                return found
            if (page := (pages or {}).get(environ["PATH_INFO"])) is not None:
                status, body = page()
                start_response(status, [("Content-Type", "application/json")])
                return [body]
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"metrics are at /metrics\n"]

        self.host, self.port = host, port
        self._server: WSGIServer | None = None
        self._bind = partial(
            make_server,
            *(host, port, serve),
            server_class=_server_class(host),
            handler_class=_Handler,
        )
        try:
            self._listen()
        except OSError as error:
            if not (waits and error.errno == errno.EADDRINUSE):
                raise ConfigurationError(
                    f"cannot serve metrics on {host}:{port} ({setting}): {error.strerror}; each "
                    "process on a machine needs its own port"
                ) from error
        # It has its own supervisor: neither the process nor its health depends on its metrics.
        self._service = Supervisor(fatal=None).thread("agentapi-metrics", self._run)

    def start(self) -> None:
        """Install this process's recorder, and serve."""
        install(self.recorder)
        self._service.start()

    def stop(self) -> None:
        """Free the port. The process records nothing more."""
        install(NoMetrics())
        self._service.stop()
        if self._server is not None:
            self._server.server_close()

    def _listen(self) -> WSGIServer:
        server = self._server = self._bind()
        self.port = server.server_port
        return server

    def _run(self, service: Service) -> None:
        server = self._server or self._wait_for_the_port(service)
        if server is None:
            return
        log.info(line("metrics.listening", host=self.host, port=self.port))
        while not service.stopping:
            ready, _, _ = select.select([server], [], [], LOOK)
            if ready:
                server.handle_request()
            service.progress()

    def _wait_for_the_port(self, service: Service) -> WSGIServer | None:
        """Bind the port once the process that holds it ends; None if this server stops first."""
        log.info(line("metrics.waiting", host=self.host, port=self.port))
        while not service.wait(LOOK):
            service.progress()
            try:
                return self._listen()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        return None


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per request: a slow client does not block others."""

    daemon_threads = True
    block_on_close = False

    @override
    def server_bind(self) -> None:
        # Not the superclass's method, which looks up this machine's name in DNS.
        self.allow_reuse_address = True
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        # The default prints a traceback, even when a client has just disconnected.
        log.debug(line("metrics.request_failed"))


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not logged."""


def _server_class(host: str) -> type[_Server]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return type("_MetricsServer", (_Server,), {"address_family": family})
