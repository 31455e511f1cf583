"""Structured logging: an event's name and its fields, as text or JSON, never users' text.

Every line of the project is logged as ``log.info(line("turn.completed", turn_id=..., attempt=1))``.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, TypeAlias

import orjson

LogFormat: TypeAlias = Literal["text", "json"]

_ESCAPED: Final = frozenset('"\\')

_PLAIN: Final = (str, int, float, bool, type(None))

_QUIET: Final = {
    # The MCP client quotes parts of servers' answers that it cannot read.
    "mcp": logging.CRITICAL,
    # We write one line per turn; Celery's two lines would only repeat it.
    "celery.app.trace": logging.WARNING,
    "celery.worker.strategy": logging.WARNING,
    # Our own line says when a worker starts, and when it has its broker back.
    "celery.worker.consumer.connection": logging.WARNING,
    # HTTP clients log the URL of each request, which may contain keys.
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    # It logs tracebacks of requests, whose text may quote users. The gateway logs the error's type
    # and location.
    "uvicorn": logging.WARNING,
}
"""The minimum level of other libraries' loggers."""


class LogLine:
    """One event of the log: a name, and fields with ids and numbers.

    Attributes:
        name: What happened, as ``noun.verb``.
        fields: Ids, numbers and codes.
        detail: More lines, such as a traceback.
    """

    __slots__ = ("detail", "fields", "name")

    def __init__(self, name: str, fields: dict[str, object], detail: str = "") -> None:
        self.name = name
        self.fields = fields
        self.detail = detail

    def __str__(self) -> str:
        parts = (f"{name}={quoted(value)}" for name, value in self.fields.items())
        text = " ".join([self.name, *parts])
        return f"{text}\n{self.detail}" if self.detail else text


def line(name: str, /, **fields: object) -> LogLine:
    """Make a log line such as ``turn.completed turn_id=042-… attempt=1``.

    Text output quotes a value that contains spaces, line breaks or quotes, so that a line always
    splits into its fields. Nothing is formatted before a handler writes the line.

    Args:
        name: What happened.
        fields: Ids, numbers and codes; never users' text.
    """
    return LogLine(name, fields)


_bound: ContextVar[Mapping[str, object]] = ContextVar("log_fields", default=MappingProxyType({}))


def bind(fields: Mapping[str, object]) -> None:
    """Add fields to all lines that the running task writes from now on, including libraries'
    lines."""
    _bound.set(fields)


@contextmanager
def binding(fields: Mapping[str, object]) -> Iterator[None]:
    """Add fields to all lines that are written in the body of this context manager."""
    token = _bound.set(fields)
    try:
        yield
    finally:
        _bound.reset(token)


def bound_fields() -> Mapping[str, object]:
    """The fields that every line of the running task has."""
    return _bound.get()


def quoted(value: object) -> str:
    """A value of a log line as one word."""
    text = str(value)
    if text.isprintable() and not (text == "" or " " in text or '"' in text or "\\" in text):
        return text
    return f'"{"".join(map(_escape, text))}"'


def _escape(character: str) -> str:
    if character in _ESCAPED:
        return f"\\{character}"
    # Line separators, control characters, marks that change the direction of text, and lone
    # surrogates.
    return character if character.isprintable() else ascii(character)[1:-1]


class _Formatter(logging.Formatter):
    """Shows where an exception was raised, without its text, which may quote users."""

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Format the traceback of a record of another library."""
        return frames_of(ei[1])


def frames_of(error: BaseException | None) -> str:
    """The traceback of an exception, with the exceptions' types in place of their text."""
    parts: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.append(f"{frames}{type(error).__qualname__}")
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)
    return "\ncaused the next one\n".join(reversed(parts))


class TextFormatter(_Formatter):
    """Time, level, logger, and the event with its fields."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Format a record's own line, with the fields that its task has."""
        more = bound_fields()
        if more and isinstance(record.msg, LogLine):
            event = record.msg
            # Separate, because other handlers format the same record.
            fields = event.fields | {n: v for n, v in more.items() if n not in event.fields}
            record.message = str(LogLine(event.name, fields, event.detail))
        return super().formatMessage(record)


class JsonFormatter(_Formatter):
    """One JSON object per line: ``time``, ``level``, ``logger``, ``event``, and the fields.

    Lines of other libraries have ``message`` instead of ``event``. All lines of a turn's task have
    the ids of the turn, including libraries' lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        shown: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}"
            f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
        }
        match record.msg:
            case LogLine() as event:
                shown["event"] = event.name
                shown |= {name: _plain(value) for name, value in event.fields.items()}
                if event.detail:
                    shown["detail"] = _plain(event.detail)
            case _:
                shown["message"] = _plain(record.getMessage())
        for name, value in bound_fields().items():
            shown.setdefault(name, _plain(value))
        if record.exc_info:
            shown["traceback"] = _plain(self.formatException(record.exc_info))
        return orjson.dumps(shown, option=orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: object) -> Any:
    """A value that JSON can hold, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        return str(value)
    if isinstance(value, _PLAIN) and not isinstance(value, str):
        return value
    # A lone surrogate cannot be written as UTF-8.
    return str(value).encode(errors="backslashreplace").decode()


def configure_logging(level: str, style: LogFormat = "text") -> None:
    """Write this process's log to standard error.

    As JSON, this includes Python's warnings, and exceptions that end the process or a thread.

    Args:
        level: The minimum level to write.
        style: ``"text"``, or ``"json"`` for one object per line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, logging.getLevelName(level)))
    if style == "json":
        _log_what_python_prints()


def _log_what_python_prints() -> None:
    """Make every line on standard error a log line."""
    logging.captureWarnings(True)
    log = logging.getLogger("agentapi.process")

    def crashed(name: str, error: BaseException | None, **where: object) -> None:
        log.critical(LogLine(name, {"error": type(error).__qualname__, **where}, frames_of(error)))

    def uncaught(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            crashed("process.crashed", error)

    sys.excepthook = uncaught
    threading.excepthook = lambda ended: crashed(
        "thread.crashed", ended.exc_value, thread=ended.thread.name if ended.thread else ""
    )
    sys.unraisablehook = lambda ignored: crashed("error.ignored", ignored.exc_value)
