"""The gateway's log: one line an event, with ids and never with content."""

from __future__ import annotations

import logging


def configure_logging(level: str) -> None:
    """Log to standard error.

    Args:
        level: Least severe line to write.
    """
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # It logs tracebacks of requests at this level, which RequestGate has logged without.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
