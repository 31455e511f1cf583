"""Agents whose model and tools record the beginning of each execution in a ledger.

The ledger is one file. Each line is one write to a descriptor opened for appending, so lines of
several processes do not mix, and a killed process leaves only complete lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentapi import (
    Agent,
    ProviderUnavailable,
    ToolContext,
    UserMessage,
    register_provider,
    tool,
)
from agentapi.providers import ModelRequest, ModelResponse
from agentapi.providers.offline import OfflineProvider
from agentapi.stores import RedisTurnStore

_TRAPS = os.environ.get("CHAOS_TRAPS")
_LEDGER = os.open(os.environ["CHAOS_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def note(**fields: Any) -> None:
    # Monotonic time is the same for all processes of a machine.
    about = {**fields, "pid": os.getpid(), "at": time.monotonic()}
    os.write(_LEDGER, json.dumps(about).encode() + b"\n")


WRITES = ("record", "commit", "park", "release")


def note_accepted_writes() -> None:
    """Record each write of a turn that Redis accepted, with the claim under which it was made."""

    def noting(name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(write)
        def method(self: Any, lease: Any, *args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            answer = write(self, lease, *args, **kwargs)
            # A process makes one claim of an epoch.
            token = getattr(lease, "token", str(os.getpid()))
            note(kind="write", what=name, turn=lease.turn_id, epoch=lease.epoch, token=token,
                 began=began)  # fmt: skip
            return answer

        return method

    for name in WRITES:
        setattr(RedisTurnStore, name, noting(name, getattr(RedisTurnStore, name)))


note_accepted_writes()


def step_into_traps() -> None:
    """Block the event loop like a faulty tool, if there is a trap for the next tool.

    The trap is a file with the number of seconds. The process that removes it blocks.
    """
    if _TRAPS is None:
        return
    with contextlib.suppress(FileNotFoundError):
        trap = Path(_TRAPS) / f"sprung-{os.getpid()}-{time.monotonic_ns()}"
        os.rename(Path(_TRAPS) / "block", trap)
        time.sleep(float(trap.read_text()))


class LedgerProvider(OfflineProvider):
    """Answers like the offline provider, and records which step of which turn was requested."""

    name = "chaos"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        turn = [*request.messages]
        while not isinstance(turn[0], UserMessage) or any(
            isinstance(message, UserMessage) for message in turn[1:]
        ):
            turn.pop(0)
        note(kind="model", turn=turn[0].turn_id, step=len(turn) - 1)
        await asyncio.sleep(0.02)
        return await super().complete(request)


register_provider("chaos", LedgerProvider)


@tool(idempotent=True)
async def work(seconds: float, context: ToolContext) -> str:
    """Take a while. May be repeated."""
    note(kind="work", turn=context.turn_id, step=1, attempt=context.attempt)
    step_into_traps()
    await asyncio.sleep(seconds)
    return "worked"


@tool
async def charge(seconds: float, context: ToolContext) -> str:
    """Take a while. Must not be repeated."""
    note(kind="charge", turn=context.turn_id, step=1, attempt=context.attempt)
    step_into_traps()
    await asyncio.sleep(seconds)
    return "charged"


@tool(idempotent=True)
async def die(context: ToolContext) -> str:
    """Have the process killed, as by an operator or the kernel."""
    note(kind="die", turn=context.turn_id, step=1, attempt=context.attempt)
    os.kill(os.getpid(), signal.SIGKILL)
    return "not dead"


@tool(idempotent=True)
async def crash(context: ToolContext) -> str:
    """Read through a null pointer, as a fault in native code would."""
    note(kind="crash", turn=context.turn_id, step=1, attempt=context.attempt)
    ctypes.string_at(0)
    return "not dead"


@tool(idempotent=True)
def devour(context: ToolContext, megabytes: int = 4096) -> str:
    """Take memory and use it, up to what no limit of these tests allows."""
    note(kind="devour", turn=context.turn_id, step=1, attempt=context.attempt)
    taken = [bytearray(b"x" * 2**20) for _ in range(megabytes)]
    return f"{len(taken)} megabytes"


chaos = Agent(name="chaos", provider="chaos", tools=[work, charge, die, crash, devour])

HANGS_FOR = 5.0
"""Seconds until a request to a provider that does not answer has timed out."""


class AwayProvider(LedgerProvider):
    """The same, but unavailable while a file exists. The file says how: ``refused`` or
    ``hangs``."""

    name = "away"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        how = how_away()
        if not how:
            return await super().complete(request)
        note(kind="asked", turn=None, how=how)
        if how == "hangs":
            await asyncio.sleep(HANGS_FOR)
        raise ProviderUnavailable(f"the connection {how}", provider=self.name)


def how_away() -> str:
    try:
        return Path(os.environ["CHAOS_AWAY"]).read_text()
    except FileNotFoundError:
        return ""


register_provider("away", AwayProvider)

patient = Agent(name="patient", provider="away", tools=[work])
