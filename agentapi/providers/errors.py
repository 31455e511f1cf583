"""Converts errors of HTTP APIs to errors grouped by what the caller must do."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote

from agentapi.decoding.plain import clean_text, cut
from agentapi.errors import (
    ContextTooLong,
    ProviderError,
    ProviderMisconfigured,
    ProviderRejected,
    ProviderUnavailable,
)

_SHOWN_MODELS = 8
_RETRY = frozenset({408, 409, 425, 429})
_CONFIGURATION = frozenset({401, 403, 404})
_TOO_LARGE = 413
_TOO_LONG = re.compile(
    r"context[ _-](length|window|size)|maximum context|token count .*exceeds"
    r"|too many (input )?tokens|(prompt|input|request) is too (long|large)",
    re.IGNORECASE,
)
"""How servers say that a request is too long. Few have an error code for it."""

_LIMITS: Final = re.compile(
    r"maximum context length (?:is|of) (\d[\d,]{0,11})"
    r"|maximum number of (?:input )?tokens allowed \((\d{1,12})\)"
    r"|context (?:size|length|window) \((\d[\d,]{0,11})"
    r"|context (?:size|length|window) (?:is|of) (\d[\d,]{0,11})"
    r"|> (\d{1,12}) maximum"
    r"|n_ctx: (\d{1,12})",
    re.IGNORECASE,
)
_COUNTS: Final = re.compile(
    r"(?:resulted in|requested(?: about)?|request has|token count of) (\d[\d,]{0,11})"
    r"|token count \((\d{1,12})\)"
    r"|request \((\d[\d,]{0,11}) tokens\)"
    r"|too long: (\d{1,12}) tokens"
    r"|n_keep: (\d{1,12})",
    re.IGNORECASE,
)
_REPLIES: Final = re.compile(r"(\d[\d,]{0,11}) (?:in|for) the (?:completion|output)", re.IGNORECASE)
"""Numbers in such messages of OpenAI, OpenRouter, Gemini, Anthropic, vLLM, llama.cpp and LM Studio:
the model's limit, the request's size, and the part of both that is reserved for the reply."""
SHORTEST_SECRET: Final = 8
"""Minimum characters of a key; providers' keys have twenty or more."""

LONGEST_MESSAGE: Final = 2_000
"""Maximum bytes of an error text: some servers answer with a whole HTML page."""


def refused(
    provider: str,
    status: int,
    message: str,
    *,
    secret: str,
    retry_after: float | None = None,
    misconfigured: bool = False,
) -> ProviderError:
    """Build the error for an HTTP status.

    Args:
        provider: Name of the provider.
        status: HTTP status, 400 or above.
        message: The provider's message; `secret` is removed from it.
        secret: The API key.
        retry_after: Seconds the provider asks to wait.
        misconfigured: Whether the provider's error code says that the key, the quota or the
            model is wrong, whatever the status.
    """
    text = _said(f"provider {provider!r} answered {status}: {message}", secret)
    if misconfigured or status in _CONFIGURATION:
        return ProviderMisconfigured(
            f"{text}; check the API key, its quota and permissions, and the model name",
            provider=provider,
            status=status,
        )
    # Checked before the statuses that are retried, because a retry would be too long again.
    if status == _TOO_LARGE or (400 <= status < 429 and _TOO_LONG.search(message)):
        return _too_long(provider, message, text, status)
    if status in _RETRY or status >= 500:
        return ProviderUnavailable(text, provider=provider, status=status, retry_after=retry_after)
    return ProviderRejected(text, provider=provider, status=status)


def reported(provider: str, message: str, secret: str) -> ProviderError:
    """Build the error for a fault that a server reports inside a stream, without an HTTP status."""
    text = _said(f"provider {provider!r} failed: {message}", secret)
    if _TOO_LONG.search(message):
        return _too_long(provider, message, text, None)
    return ProviderUnavailable(text, provider=provider)


def _too_long(provider: str, message: str, text: str, status: int | None) -> ContextTooLong:
    """The error for a request that is too long, with the numbers that the server gives."""
    limit, counted = (_number(pattern, message) for pattern in (_LIMITS, _COUNTS))
    reply = _number(_REPLIES, message)
    if reply and limit and counted and reply < limit:
        # The part reserved for the reply is not available for the request.
        limit, counted = limit - reply, counted - reply
    return ContextTooLong(
        f"{text}; the request does not fit the model's context: shorten the message, or use a "
        "model with a larger context",
        provider=provider,
        status=status,
        limit=limit,
        counted=counted,
        # A limit on bytes says nothing about the model's tokens.
        of_model=status != _TOO_LARGE,
    )


def _number(pattern: re.Pattern[str], message: str) -> int | None:
    found = pattern.search(message)
    digits = next((group for group in found.groups() if group), "") if found else ""
    return int(digits.replace(",", "")) or None if digits else None


def broken(provider: str, what: str, secret: str = "") -> ProviderUnavailable:
    """Build the error for an answer that is incomplete or unreadable."""
    return ProviderUnavailable(_said(f"provider {provider!r} {what}", secret), provider=provider)


def missing_key(provider: str, *variables: str) -> ProviderMisconfigured:
    """Build the error for a missing API key."""
    names = " or ".join(variables)
    return ProviderMisconfigured(
        f"{names} is not set: provider {provider!r} needs an API key in the workers' environment "
        "or in the file .env of their working directory (if the server needs none, set any text)",
        provider=provider,
    )


def unlisted(
    provider: str, models: Collection[str], known: Collection[str] = ()
) -> ProviderMisconfigured:
    """Build the error for models that a provider does not list.

    Args:
        provider: Name of the provider.
        models: The models that it does not list.
        known: Models that it lists, if known.
    """
    some = sorted(known)[:_SHOWN_MODELS]
    more = ", …" if len(known) > len(some) else ""
    lists = f"; it lists {', '.join(some)}{more}" if some else ""
    names = ", ".join(map(repr, models))
    text = f"provider {provider!r} does not list the model {names}{lists}"
    return ProviderMisconfigured(_said(text, ""), provider=provider, status=404)


def _said(text: str, secret: str) -> str:
    return cut(clean_text(without_secret(text, secret)), LONGEST_MESSAGE)


def without_secret(text: str, secret: str) -> str:
    """Replace the secret in a text by ``***``, also in its percent-encoded form.

    A text of fewer than `SHORTEST_SECRET` characters is not a secret but a placeholder, for a
    server that needs no key. Replacing it would corrupt words that contain it.
    """
    if len(secret) < SHORTEST_SECRET:
        return text
    return text.replace(secret, "***").replace(quote(secret, safe=""), "***")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read the seconds that a response asks to wait.

    From ``retry-after-ms``, or from ``retry-after`` as seconds or as a date (RFC 9110, 10.2.3).
    None if the header is missing or invalid.
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
            # This compares with our own clock, which may be wrong; a wait is never negative.
            until = parsedate_to_datetime(value) - datetime.now(UTC)
            return max(until.total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
