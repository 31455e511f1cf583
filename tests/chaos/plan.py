"""What a random run does, and what it found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.checker import Findings
from tests.chaos.options import option
from tests.chaos.sentinels import Loss


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Harm of many kinds at random under load, all of it decided by the seed.

    A run with failovers has a master, a replica and three sentinels; one with broker outages has a
    broker apart from the store; one with cuts has a proxy between each worker and its servers.
    """

    folder: Path
    seed: int = option(1, "decides everything")
    turns: int = option(2000, "turns at least")
    workers: int = option(3, "worker processes; each that goes is replaced at once")
    conversations: int = option(60, "conversations that the turns are spread over")
    open_turns: int = option(120, "turns that wait or run all the time")
    longest_tool: float = option(0.6, "seconds that a tool takes at most")
    lease: float = option(10.0, "lease_ttl in seconds")
    heartbeat: float = option(3.0, "seconds between beats")
    kills: int = option(40, "workers to lose: killed, with their machine, paused, terminated")
    redis_restarts: int = option(3, "Redis is killed and started again on its file")
    broker_flushes: int = option(3, "the broker loses all it has")
    failovers: int = option(0, "the master is killed when its replica lags behind")
    broker_outages: int = option(0, "a broker of its own is killed, away for seconds, or emptied")
    blocks: int = option(0, "a tool blocks its worker's event loop")
    watchdogs: int = option(0, "a watchdog is killed")
    clocks: int = option(0, "a worker comes whose clock is off by an hour")
    disks: int = option(0, "Redis's disk is full for seconds")
    cuts: int = option(0, "the network between a worker and its servers fails for seconds")
    skews: int = option(0, "something is left in Redis as a newer release would")
    old_version: str = option("", "a commit; a third of the workers that start are of it")
    publish: bool = option(False, "write the figures into docs/reliability.md")


FAULTS: Final = {
    "kills": "kill",
    "redis_restarts": "Redis killed",
    "broker_flushes": "broker emptied",
    "failovers": "failover",
    "broker_outages": "broker of its own away",
    "blocks": "event loop blocked",
    "watchdogs": "watchdog killed",
    "clocks": "clock off by an hour",
    "disks": "disk full",
    "cuts": "network cut",
    "skews": "newer release",
}
"""Counts of a plan and the faults that they count."""


def conflicts(plan: Plan) -> str:
    """Why a plan cannot be carried out, or nothing."""
    if plan.failovers and plan.cuts:
        return "cuts are between workers and one server: sentinels would name the server itself"
    if plan.failovers and plan.redis_restarts:
        return "a master that is killed behind sentinels is a failover: give --redis-restarts 0"
    return ""


@dataclass
class Outcome:
    """What was done, what it did, and what the checker found."""

    plan: Plan
    findings: Findings
    faults: Counter[str]
    recovery: dict[str, list[float]]
    elapsed: float
    zombies: int
    turns: int
    repeats: int
    reads: int
    ended_themselves: int = 0
    losses: Sequence[Loss] = ()
    problems: list[str] = field(default_factory=list)
