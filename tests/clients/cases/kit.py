"""Runs the cases of one client, in that client's own environment. Needs the standard library only.

Each case prints one JSON line: its name, what it shows, and the error if it failed.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

BASE = os.environ.get("GATEWAY_URL", "")
"""The gateway with `/v1`."""

KEY = os.environ.get("GATEWAY_KEY", "")

LIMIT = float(os.environ.get("CASE_LIMIT", "60"))
"""Seconds for one case."""

_cases: list[tuple[str, str, Callable[[], Any]]] = []


def case(feature: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Mark a function as a case.

    Args:
        feature: `quickstart`, `streaming`, `multi-turn`, `instructions`, `parameters`, `tools`,
            `structured output`, `approval`, `errors`, or `objects`.
    """

    def add(function: Callable[[], Any]) -> Callable[[], Any]:
        _cases.append((function.__name__, feature, function))
        return function

    return add


def contains(text: Any, *parts: str) -> None:
    """Check that a text holds all parts."""
    for part in parts:
        assert part in str(text), f"{part!r} is missing in {str(text)[:400]!r}"


def main() -> None:
    """Run the cases that the command line names, or all."""
    wanted = set(sys.argv[1:])
    # Frameworks print as they like; the report keeps standard output for itself.
    report, sys.stdout = sys.stdout, sys.stderr
    for name, feature, function in _cases:
        if wanted and name not in wanted:
            continue
        began = time.monotonic()
        print(f"--- {name}", flush=True)
        error = _run(function)
        line = {
            "case": name,
            "feature": feature,
            "error": error,
            "seconds": round(time.monotonic() - began, 2),
        }
        report.write(json.dumps(line) + "\n")
        report.flush()
    # Background threads of a framework must not keep the process.
    os._exit(0)


def _run(function: Callable[[], Any]) -> str | None:
    signal.signal(signal.SIGALRM, _too_long)
    # Again and again: a client may take the first for a lost connection, and retry.
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 1)
    try:
        result = function()
        if inspect.isawaitable(result):
            asyncio.run(_finish(result))
    except BaseException as error:
        traceback.print_exc(file=sys.stderr)
        return f"{type(error).__name__}: {error}"[:600]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


async def _finish(awaitable: Any) -> Any:
    return await awaitable


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"no end within {LIMIT:g} s")
