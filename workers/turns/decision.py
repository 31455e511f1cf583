"""Decisions about a claimed turn. `TurnExecutor` decides, `TurnCloser` acts on the decision."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from agentapi.engine.progress import TurnProgress
from agentapi.errors import StoreUnavailable
from agentapi.signals import LeaseLost, TurnParked
from agentapi.stores import Ending
from agentapi.turns import HeldCalls, TurnError, TurnStatus, WaitKind
from workers.turns.endings import failed, stopped
from workers.turns.running import StopReason


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """The turn has ended: commit it."""

    ending: Ending


@dataclass(frozen=True, kw_only=True, slots=True)
class Park:
    """Free the worker until the provider is tried again.

    Attributes:
        delay: Seconds until the next attempt.
        failures: How many times the model call has failed so far.
        lasted: Seconds since the first of these failures; None without one.
        kind: The kind of what it waits for.
        names: Names of what it waits for.
    """

    delay: float
    failures: int
    lasted: float | None = None
    kind: str = WaitKind.PROVIDER
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspend:
    """The turn waits for decisions or child turns. The store knows: the lease is released.

    Attributes:
        held: What it waits for.
    """

    held: HeldCalls


@dataclass(frozen=True, kw_only=True, slots=True)
class HandBack:
    """Another worker continues the turn after its last recorded step."""


class AbandonReason(StrEnum):
    """Why a worker abandons a turn without writing anything; the status in its summary."""

    LEASE_LOST = "lost"
    STORE_UNAVAILABLE = "store_unavailable"
    LOGIN_REFUSED = "login_refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Abandon:
    """Write nothing: the turn belongs to another worker, or Redis cannot be reached."""

    reason: AbandonReason


TurnDecision: TypeAlias = Commit | Park | Suspend | HandBack | Abandon


def decide(
    error: BaseException, progress: TurnProgress, stopped_for: StopReason | None
) -> TurnDecision:
    """Decide about a turn whose run raised an error.

    Args:
        error: What it raised.
        progress: The turn so far.
        stopped_for: Why the turn was stopped from outside, if it was.
    """
    match error:
        case asyncio.CancelledError():
            return _stopped(stopped_for, progress)
        case TurnParked():
            return Park(
                delay=error.delay,
                failures=error.failures,
                lasted=error.lasted,
                kind=error.kind,
                names=error.names,
            )
        case LeaseLost():
            return Abandon(reason=AbandonReason.LEASE_LOST)
        # `WorkerLog.call` gives up on Redis once the turn is stopped, so this is a shutdown.
        case StoreUnavailable() if stopped_for is StopReason.SHUTDOWN:
            return HandBack()
        case StoreUnavailable():
            # The code is one of the reasons: `StoreUnavailable` has a subclass for refused logins.
            return Abandon(reason=AbandonReason(error.code))
        case _:
            # Including the faults of users' providers and SystemExit: the turn must end, since
            # another attempt would only meet the same error.
            return Commit(ending=failed(error, progress))


def _stopped(reason: StopReason | None, progress: TurnProgress) -> TurnDecision:
    match reason:
        case StopReason.SHUTDOWN:
            return HandBack()
        case StopReason.LEASE_LOST:
            return Abandon(reason=AbandonReason.LEASE_LOST)
        case StopReason.CANCELLED:
            return Commit(ending=stopped(TurnStatus.CANCELLED, progress))
        case None:
            # It was not stopped from here: the user's own code cancelled the task.
            message = "the agent loop was cancelled from within: see the worker's log"
            error = TurnError(code="internal", message=message)
            return Commit(ending=stopped(TurnStatus.FAILED, progress, error))
