"""A worker's report about its current work, for views of the fleet.

It crosses the broker as plain data, without users' text. Workers of other releases answer too:
missing fields have defaults, and unknown fields are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from agentapi.metrics.pace import Done

COMMAND: Final = "activity"
"""Name of the remote-control command that workers answer with a `WorkerActivity`."""

MOST_TURNS: Final = 50
"""Maximum turns in a worker's answer: those that have run longest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningNow:
    """A turn that a worker runs.

    Attributes:
        turn_id: The turn.
        conversation_id: Its conversation.
        agent: The agent that the turn was enqueued for.
        tenant_id: The tenant, or None.
        attempt: How many times it was claimed.
        steps: Number of model responses and tool results so far.
        seconds: Seconds since the worker claimed it.
        doing: ``model`` while it waits for a model, ``tools`` while tools run, ``isolated`` in a
            separate process, else the kind of a turn of the runtime itself: ``compaction``,
            ``gather``, ``chain``.
        tools: Names of the tools that run, if the worker's agents declare them.
    """

    turn_id: str
    conversation_id: str
    agent: str
    tenant_id: str | None = None
    attempt: int = 1
    steps: int = 0
    seconds: float = 0.0
    doing: str = "model"
    tools: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderUse:
    """A provider that a worker's agents use.

    Attributes:
        requests: The fleet's limit of requests per minute; None for no limit.
        tokens: The fleet's limit of tokens per minute; None for no limit.
    """

    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerActivity:
    """A worker's answer about its work.

    Attributes:
        process: Identifies the process independently of its name.
        pid: Its process id on its machine.
        version: Its release.
        uptime: Seconds since it started.
        slots: How many turns it can run at the same time.
        used: How many slots are occupied.
        accepting: Whether it takes more turns.
        stopping: Whether it is shutting down.
        redis_away: Whether it waits for Redis.
        agents: The names of its agents.
        queues: The queues that it takes turns from.
        providers: The providers of its agents, by name.
        faults: Background services that have failed since they last made progress.
        minute: What it did in the last minute.
        turns: The turns that it runs, the oldest first; at most `MOST_TURNS`.
    """

    process: str = ""
    pid: int = 0
    version: str = ""
    uptime: float = 0.0
    slots: int = 0
    used: int = 0
    accepting: bool = True
    stopping: bool = False
    redis_away: bool = False
    agents: Sequence[str] = ()
    queues: Sequence[str] = ()
    providers: Mapping[str, ProviderUse] = field(default_factory=dict)
    faults: Sequence[str] = ()
    minute: Done = field(default_factory=Done)
    turns: Sequence[RunningNow] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> WorkerActivity | None:
        """Read an answer; None if it is not valid, for example from a worker of an older
        release."""
        if not isinstance(data, Mapping) or "slots" not in data:
            return None
        known = _known(cls, data)
        known["minute"] = Done.from_json(data.get("minute"))
        known["turns"] = [RunningNow(**_known(RunningNow, turn)) for turn in data.get("turns", ())]
        known["providers"] = {
            name: ProviderUse(**_known(ProviderUse, use))
            for name, use in data.get("providers", {}).items()
        }
        return cls(**known)


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    return {each.name: data[each.name] for each in fields(kind) if each.name in data}
