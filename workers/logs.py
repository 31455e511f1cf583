"""Log lines: an action's name and ids, never what people say."""

from __future__ import annotations

import logging
from typing import Final

_ESCAPED: Final = frozenset('"\\')


def line(action: str, **ids: object) -> str:
    """A log line such as ``turn.completed turn_id=042-… attempt=1``.

    A value that could be taken for more than one (with spaces, line breaks, quotes) is quoted.
    """
    return " ".join([action, *(f"{name}={quoted(value)}" for name, value in ids.items())])


def quoted(value: object) -> str:
    """A value of a log line, which is one line and one word."""
    text = str(value)
    if text.isprintable() and not (text == "" or " " in text or '"' in text or "\\" in text):
        return text
    return f'"{"".join(map(_escape, text))}"'


def _escape(character: str) -> str:
    if character in _ESCAPED:
        return f"\\{character}"
    # Line separators, control characters, marks that change the direction of text, halves of
    # characters.
    return character if character.isprintable() else ascii(character)[1:-1]


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
