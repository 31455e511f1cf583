"""Log lines: an action's name and ids, never what people say."""

from __future__ import annotations

import logging


def line(action: str, **ids: object) -> str:
    """A log line such as ``turn.completed turn_id=042-… attempt=1``."""
    return " ".join([action, *(f"{name}={value}" for name, value in ids.items())])


def configure_logging(level: str) -> None:
    """Write log lines of this process to standard error."""
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    # MCP's client quotes what servers send that it cannot read.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    # One line a turn is ours; Celery's two would only repeat it. Lines a request of an HTTP client
    # show addresses, which may hold keys.
    for name in ("celery.app.trace", "celery.worker.strategy", "httpx", "httpx2"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
