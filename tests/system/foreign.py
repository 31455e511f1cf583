"""Another web page on the same machine, which would like to use the console."""

from __future__ import annotations

import html
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

FIELDS: Final = (
    """(form) => [...new FormData(form)].map(([name, value]) => [name, String(value)])"""
)
"""The fields of a form, as a browser would send them."""


class _Pages(ThreadingHTTPServer):
    """Serves pages that a test writes.

    Attributes:
        pages: HTML by path.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, str] = {}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Pages)
        body = server.pages.get(self.path, "<!doctype html><title>empty</title>").encode()
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Foreign:
    """A web server of somebody else.

    Attributes:
        port: Its port; every name that ends with ``.test`` leads to this machine.
    """

    def __init__(self, server: _Pages) -> None:
        """Write pages for a server that runs."""
        self._server = server
        self.port = server.server_address[1]

    def page(self, path: str, body: str) -> str:
        """Put a page there; returns its path."""
        self._server.pages[path] = f"<!doctype html><title>foreign</title><body>{body}"
        return path

    def form(self, path: str, action: str, fields: Mapping[str, str]) -> str:
        """Put a page there that posts a form by itself; returns its path."""
        inputs = "".join(
            f'<input name="{html.escape(name)}" value="{html.escape(value)}">'
            for name, value in fields.items()
        )
        return self.page(
            path,
            f'<form method="post" action="{html.escape(action)}">{inputs}</form>'
            "<script>document.forms[0].submit()</script>",
        )


@contextmanager
def foreign() -> Iterator[Foreign]:
    """Run such a server."""
    server = _Pages()
    thread = threading.Thread(target=server.serve_forever, name="foreign", daemon=True)
    thread.start()
    try:
        yield Foreign(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
