"""How errors are described, and which of them are a request to stop rather than a fault."""

from __future__ import annotations

import asyncio
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


def stop_if_asked(error: BaseException) -> None:
    """Call this after user code raised: it returns unless the task is being stopped from outside.

    A `CancelledError` that the code raised by itself is a fault like any other. So is a
    `SystemExit`, which would end the process's event loop.

    Raises:
        asyncio.CancelledError: The task is being cancelled, whatever the code turned that into.
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
