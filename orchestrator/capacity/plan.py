"""The fleet that a load needs, by formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from agentapi.errors import InvalidInput
from agentapi.ids import PARTITIONS
from orchestrator.capacity.costs import Costs
from orchestrator.capacity.load import Load
from orchestrator.capacity.routing import hottest_share

GIB: Final = 2**30

_HOUR_TO_MONTH: Final = 730


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """The size of a fleet.

    Attributes:
        workers: Number of worker processes.
        slots: Turns in flight in each (`AGENTAPI_CONCURRENCY`).
        shards: Number of Redis primaries.
        gateways: Number of gateway processes.
        balanced: Whether the shards have equally many partitions.
        queues: Number of Celery queues (`AGENTAPI_QUEUES`).
    """

    workers: int
    slots: int = 64
    shards: int = 1
    gateways: int = 0
    balanced: bool = True
    queues: int = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """Limits of utilisation, retention times and prices.

    Attributes:
        busy: Share of a core that a process may use, above 0 to 1.
        full: Share of a worker's slots that turns may take, above 0 to 1.
        spare: Share of the workers that may be lost at the same time, 0 to below 1.
        shard_gib: Memory of one Redis primary, in GiB. Half of it is for data, because
            copy-on-write may take the rest while Redis saves its file.
        turn_retention: Seconds for which an ended turn is kept.
        events_retention: Seconds for which an ended turn's events are kept.
        archive_turns_after: Seconds after its end at which a turn's record moves to the archive; 0
            if it stays in Redis.
        core_hour: Price of a core for an hour.
        gib_hour: Price of a GiB of memory for an hour.
        replicas: Replicas of each Redis primary.
        disk_gib_month: Price of a GiB of the archive's disk for a month.
        archive_copies: Number of copies of the archive: a database and its standby.
    """

    busy: float = 0.6
    full: float = 0.8
    spare: float = 0.2
    shard_gib: float = 16.0
    turn_retention: float = 604_800.0
    events_retention: float = 3_600.0
    archive_turns_after: float = 0.0
    core_hour: float = 0.04
    gib_hour: float = 0.005
    replicas: int = 1
    disk_gib_month: float = 0.1
    archive_copies: int = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a load needs.

    Attributes:
        fleet: The size of the fleet.
        in_flight: Turns that run at any moment.
        worker_cores: Cores that the workers use.
        store_cores: Cores that all Redis primaries use together.
        gateway_cores: Cores that the gateways use.
        worker_bound: What limits the number of workers: "slots" or "cores".
        shard_bound: What limits the number of shards: "memory" or "cores".
        worker_gib: Memory of all workers.
        store_gib: Data of all Redis primaries: messages, records of turns, events.
        messages_gib: The part of it that is messages of conversations.
        turns_gib: The part of it that is records of ended turns, and list entries of those whose
            records are in the archive.
        events_gib: The part of it that is events of ended turns.
        wakeups_per_second: Messages through the broker.
        archive_gib: Tables and indexes of the archive, once.
        archive_turns: Ended turns whose records are in the archive.
        archive_turns_gib: The part of the archive that is records of ended turns.
        archive_month: Price of a month of the archive's disks, without its servers.
        month: Price of a month, with the archive's disks.
    """

    fleet: Fleet
    in_flight: float
    worker_cores: float
    store_cores: float
    gateway_cores: float
    worker_bound: str
    shard_bound: str
    worker_gib: float
    store_gib: float
    messages_gib: float
    turns_gib: float
    events_gib: float
    wakeups_per_second: float
    archive_gib: float
    archive_turns: int
    archive_turns_gib: float
    archive_month: float
    month: float


def plan(load: Load, costs: Costs, rules: Rules | None = None, *, slots: int = 64) -> Plan:
    """The smallest fleet that carries a load.

    Args:
        load: The load.
        costs: The measured costs.
        rules: Limits of utilisation, and prices.
        slots: Turns in flight in one worker process.

    Raises:
        InvalidInput: The load needs more Redis shards than there are partitions.
    """
    rules = rules or Rules()
    rate = load.turns_per_second
    worker_cores = rate * worker_ms(load, costs) / 1000
    store_cores = rate * store_ms(load, costs) / 1000
    gateway_cores = rate * load.through_gateway * costs.gateway_turn_ms / 1000
    by_cores, by_slots = worker_cores / rules.busy, load.in_flight / (slots * rules.full)
    workers = math.ceil(max(by_cores, by_slots, 1) / (1 - rules.spare))
    messages_gib, turns_gib, events_gib = _data(load, costs, rules)
    store_gib = messages_gib + turns_gib + events_gib
    shards, bound = _shards(store_cores, store_gib, rules)
    gateways = math.ceil(gateway_cores / rules.busy)
    worker_gib = (workers * costs.worker_mib + load.in_flight * costs.worker_slot_mib) / 1024
    servers = shards * (1 + rules.replicas)
    # Workers that wait for models can share cores; each primary and each replica has its own.
    cores = (worker_cores + gateway_cores) / rules.busy / (1 - rules.spare) + servers
    memory = worker_gib + servers * rules.shard_gib
    _, archive_turns = _ended(load, rules)
    own = load.messages * load.message_bytes
    archive_turns_gib = archive_turns * (costs.archive_turn_bytes + own) / GIB
    archive_gib = _archive(load, costs) + archive_turns_gib
    archive_month = archive_gib * rules.archive_copies * rules.disk_gib_month
    running = _HOUR_TO_MONTH * (cores * rules.core_hour + memory * rules.gib_hour)
    return Plan(
        fleet=Fleet(workers=workers, slots=slots, shards=shards, gateways=gateways),
        in_flight=load.in_flight,
        worker_cores=worker_cores,
        store_cores=store_cores,
        gateway_cores=gateway_cores,
        worker_bound="cores" if by_cores > by_slots else "slots",
        shard_bound=bound,
        worker_gib=worker_gib,
        store_gib=store_gib,
        messages_gib=messages_gib,
        turns_gib=turns_gib,
        events_gib=events_gib,
        wakeups_per_second=rate,
        archive_gib=archive_gib,
        archive_turns=round(archive_turns),
        archive_turns_gib=archive_turns_gib,
        archive_month=archive_month,
        month=running + archive_month,
    )


def worker_ms(load: Load, costs: Costs) -> float:
    """Milliseconds of a worker's core for one turn."""
    steps = load.tool_calls * costs.worker_step_ms
    return costs.worker_turn_ms + steps + load.streamed * load.pieces * costs.worker_piece_ms


def store_ms(load: Load, costs: Costs) -> float:
    """Milliseconds of Redis for one turn."""
    once = costs.store_enqueue_ms + costs.store_turn_ms
    steps = load.tool_calls * costs.store_step_ms
    return once + steps + load.streamed * load.pieces * costs.store_piece_ms


def _data(load: Load, costs: Costs, rules: Rules) -> tuple[float, float, float]:
    """GiB of messages, of ended turns, and of their events."""
    message = load.message_bytes + costs.message_overhead_bytes
    here = costs.conversation_bytes + load.messages_kept * message
    away = load.archived * costs.archive_marker_bytes
    messages = load.conversations * ((1 - load.archived) * here + away)
    own = load.messages * load.message_bytes
    turn = costs.turn_bytes + costs.turn_message_factor * own
    whole, moved = _ended(load, rules)
    turns = whole * turn + moved * costs.archive_turn_marker_bytes
    events = load.turns_per_second * rules.events_retention * costs.events_bytes
    return messages / GIB, turns / GIB, events / GIB


def _ended(load: Load, rules: Rules) -> tuple[float, float]:
    """Numbers of stored ended turns: with records in Redis, and in the archive."""
    kept = load.turns_per_second * load.average * rules.turn_retention
    if not rules.archive_turns_after:
        return kept, 0.0
    # A turn is kept until its events have expired. The last hour may be the busiest.
    after = max(rules.archive_turns_after, rules.events_retention)
    whole = min(kept, load.turns_per_second * after)
    return whole, kept - whole


def _archive(load: Load, costs: Costs) -> float:
    """GiB of the conversations in the archive."""
    message = load.message_bytes + costs.archive_message_overhead_bytes
    conversation = costs.archive_conversation_bytes + load.messages_kept * message
    return load.conversations * load.archived * conversation / GIB


def _shards(cores: float, gib: float, rules: Rules) -> tuple[int, str]:
    for shards in range(1, PARTITIONS + 1):
        share = hottest_share(shards, balanced=True)
        by_cores, by_memory = cores * share / rules.busy, gib * share / (rules.shard_gib / 2)
        if max(by_cores, by_memory) <= 1:
            return shards, "memory" if by_memory > by_cores else "cores"
    raise InvalidInput(
        f"the load needs {cores:.1f} cores of Redis and {gib:,.0f} GiB, more than {PARTITIONS} "
        f"shards of {rules.shard_gib:g} GiB provide: use larger shards, shorter retention, or "
        "several installations"
    )
