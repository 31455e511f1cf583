"""Faults in a simulation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """Machines are lost, with their workers and watchdogs.

    Attributes:
        at: Seconds after the start.
        workers: Number of lost worker processes.
    """

    at: float
    workers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Outage:
    """The provider refuses every call.

    Attributes:
        at: Seconds after the start.
        seconds: Duration of the outage.
    """

    at: float
    seconds: float
