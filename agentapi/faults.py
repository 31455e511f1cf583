"""Descriptions of errors, and the distinction between a failure and a request to stop."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any

from agentapi.decoding.plain import clean_text


def text_of(error: BaseException) -> str:
    """Return the error's text in a form that can be stored. Never raises."""
    try:
        text = str(error)
    except BaseException:
        # The error's own __str__ is broken, for example by a missing attribute.
        text = "(its text cannot be read)"
    return clean_text(text)


def named(error: BaseException) -> str:
    """The error's type and text."""
    return f"{type(error).__name__}: {text_of(error)}"


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def why_unreachable(error: BaseException) -> str:
    """Why a server cannot be reached, in a few words: the operating system's reason if there is
    one."""
    found = [cause for cause in causes_of(error) if isinstance(cause, OSError)]
    return system_reason(found[-1]) if found else type(error).__name__


def system_reason(error: OSError) -> str:
    """The operating system's reason for a failed connection, such as ``connection refused``."""
    if isinstance(error, socket.gaierror):
        return f"its host name cannot be resolved ({error.strerror})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not valid ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or type(error).__name__})"
    if error.errno is not None:
        text = os.strerror(error.errno)
        return text[:1].lower() + text[1:]
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def stop_if_asked(error: BaseException) -> None:
    """Call this after user code raised an error. It returns unless the task is being stopped from
    outside.

    A `CancelledError` that the code raised by itself is a fault like any other. So is a
    `SystemExit`, which would end the process's event loop.

    Raises:
        asyncio.CancelledError: The task is being cancelled, even if the code raised another error.
        GeneratorExit: The coroutine is being closed; that never happens to a running task.
    """
    task = _running_task()
    if task is None and isinstance(error, GeneratorExit):
        raise error
    if task is not None and task.cancelling() > 0:
        if isinstance(error, asyncio.CancelledError):
            raise error
        raise asyncio.CancelledError from error


def _running_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
