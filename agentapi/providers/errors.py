"""A provider's refusals as errors split by what the caller must do; the same for all HTTP APIs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from agentapi.decoding.plain import clean_text, cut
from agentapi.errors import (
    ContextTooLong,
    ProviderError,
    ProviderMisconfigured,
    ProviderRejected,
    ProviderUnavailable,
)

_RETRY = frozenset({408, 409, 425, 429})
_CONFIGURATION = frozenset({401, 403, 404})
_TOO_LARGE = 413
_TOO_LONG = re.compile(
    r"context[ _-](length|window|size)|maximum context|token count .*exceeds"
    r"|too many (input )?tokens|(prompt|input|request) is too (long|large)",
    re.IGNORECASE,
)
"""How servers of all makes say that a request does not fit; few have a code for it."""

LONGEST_MESSAGE: Final = 2_000
"""Bytes of an error: some servers answer with a whole page of HTML."""


def refused(
    provider: str,
    status: int,
    message: str,
    *,
    secret: str,
    retry_after: float | None = None,
    misconfigured: bool = False,
) -> ProviderError:
    """The error of an HTTP status.

    Args:
        provider: Name of the provider.
        status: HTTP status, 400 or above.
        message: What the provider says; `secret` is taken out of it.
        secret: The API key.
        retry_after: Seconds the provider asks to wait.
        misconfigured: Whether the provider's own code tells that the key, the quota or the
            model is wrong, whatever the status.
    """
    text = _said(f"provider {provider!r} answered {status}: {message}", secret)
    if misconfigured or status in _CONFIGURATION:
        return ProviderMisconfigured(
            f"{text}; check the API key, its quota and permissions, and the model's name",
            provider=provider,
            status=status,
        )
    if status == _TOO_LARGE or (400 <= status < 429 and _TOO_LONG.search(message)):
        return ContextTooLong(
            f"{text}; shorten Agent(window=...), or use a model that takes more",
            provider=provider,
            status=status,
        )
    if status in _RETRY or status >= 500:
        return ProviderUnavailable(text, provider=provider, status=status, retry_after=retry_after)
    return ProviderRejected(text, provider=provider, status=status)


def broken(provider: str, what: str, secret: str = "") -> ProviderUnavailable:
    """The error of an answer that did not arrive whole."""
    return ProviderUnavailable(_said(f"provider {provider!r} {what}", secret), provider=provider)


def missing_key(provider: str, *variables: str) -> ProviderMisconfigured:
    """The error of a key that is not set."""
    names = " or ".join(variables)
    return ProviderMisconfigured(
        f"{names} is not set: provider {provider!r} needs an API key in the workers' environment "
        "(for a server that wants none, any text will do)",
        provider=provider,
    )


def _said(text: str, secret: str) -> str:
    return cut(clean_text(without_secret(text, secret)), LONGEST_MESSAGE)


def without_secret(text: str, secret: str) -> str:
    """The text with the secret replaced by ``***``."""
    return text.replace(secret, "***") if secret else text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait: ``retry-after-ms``, or ``retry-after`` as seconds
    or as a date (RFC 9110, 10.2.3). None when it does not say, or says nonsense.
    """
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(float(milliseconds) / 1000, 0.0)
        value = headers.get("retry-after")
        if not value:
            return None
        try:
            return max(float(value), 0.0)
        except ValueError:
            until = parsedate_to_datetime(value) - datetime.now(UTC)
            return max(until.total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
