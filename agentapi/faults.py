"""What is said of an error, and which errors are a request to stop rather than a fault."""

from __future__ import annotations

import asyncio
from typing import Any

from agentapi.decoding.plain import clean_text


def text_of(error: BaseException) -> str:
    """The error's own text, fit to be stored. Never raises."""
    try:
        text = str(error)
    except BaseException:
        # A fault in the error's own __str__, such as missing attributes.
        text = "(its text cannot be read)"
    return clean_text(text)


def named(error: BaseException) -> str:
    """The error's type and text."""
    return f"{type(error).__name__}: {text_of(error)}"


def stop_if_asked(error: BaseException) -> None:
    """After user code raised: go on, unless somebody stops the running task from outside.

    A `CancelledError` of the code's own making is a fault like any other, and so is a `SystemExit`,
    which would end the process's event loop.

    Raises:
        asyncio.CancelledError: The task is being cancelled, whatever the code made of that.
        GeneratorExit: The coroutine is being closed, which no task does that runs.
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
