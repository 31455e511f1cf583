"""What a random run does, and what it found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tests.chaos.checker import Findings
from tests.chaos.loss import Loss
from tests.chaos.options import option
from tests.chaos.topology import USUAL, refusal, usual


def fitting(explained: str) -> int:
    """A count of faults that is what is usual for the servers, if it is not given."""
    count: int = option(USUAL, f"{explained}; {USUAL}: three where the servers can suffer it")
    return count


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Harm of many kinds at random under load, all of it decided by the seed.

    A run with cuts has a proxy between each worker and its servers; only before the broker where
    sentinels or a cluster say which server it is.
    """

    folder: Path
    seed: int = option(1, "decides everything")
    store: str = option(
        "single", "one Valkey (single), a master with sentinels (sentinel), or cluster"
    )
    broker: str = option("store", "the store itself (store), another Valkey (valkey), or rabbitmq")
    turns: int = option(2000, "turns at least")
    workers: int = option(3, "worker processes; each that goes is replaced at once")
    conversations: int = option(60, "conversations that the turns are spread over")
    open_turns: int = option(120, "turns that wait or run all the time")
    longest_tool: float = option(0.6, "seconds that a tool takes at most")
    lease: float = option(10.0, "lease_ttl in seconds")
    heartbeat: float = option(3.0, "seconds between beats")
    kills: int = option(40, "workers to lose: killed, with their machine, paused, terminated")
    redis_restarts: int = fitting("Redis is killed and started again on its file")
    broker_flushes: int = fitting("the broker loses all it has")
    failovers: int = fitting("the master is killed when its replica lags behind")
    moves: int = fitting("the slot of a partition moves to another shard")
    stalls: int = fitting("a shard stands still for seconds")
    node_timeout: float = option(
        0.0, "seconds until a cluster promotes a replica by itself; 0: failovers are ordered"
    )
    broker_outages: int = fitting("a broker of its own is killed, away, emptied or cut off")
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
    "moves": "slot moved",
    "stalls": "shard stands still",
    "broker_outages": "broker of its own away",
    "blocks": "event loop blocked",
    "watchdogs": "watchdog killed",
    "clocks": "clock off by an hour",
    "disks": "disk full",
    "cuts": "network cut",
    "skews": "newer release",
}
"""Counts of a plan and the faults that they count."""


def settled(plan: Plan) -> Plan:
    """The plan with all counts decided.

    Raises:
        ValueError: Its servers cannot suffer its faults.
    """
    counts = {name: getattr(plan, name) for name in FAULTS}
    if reason := refusal(plan.store, plan.broker, counts):
        raise ValueError(reason)
    decided = usual(plan.store, plan.broker)
    if plan.node_timeout:
        if plan.store != "cluster":
            raise ValueError("--node-timeout needs --store cluster")
        if plan.stalls > 0:
            # What a primary answered last need not have reached its replica.
            raise ValueError("--node-timeout needs --stalls 0: the shard would fail over")
        decided["stalls"] = 0
    chosen: dict[str, Any] = {n: decided[n] for n, count in counts.items() if count == USUAL}
    return replace(plan, **chosen)


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
