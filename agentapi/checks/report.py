"""A worker's report about itself, for `agentapi doctor`.

It crosses the broker as plain data, without secrets and without users' text. Workers of other
releases answer too: missing fields have defaults, and unknown fields are ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from pydantic_core import to_jsonable_python

from agentapi.checks.findings import Finding
from agentapi.settings import Settings
from agentapi.supervision import ServiceStatus

COMMAND: Final = "examine"
"""Name of the remote-control command that workers answer with a `WorkerReport`."""

SHARED: Final = (
    *("queues", "lease_ttl", "heartbeat", "sweep_interval", "dispatch_grace", "max_attempts"),
    *("turn_timeout", "provider_max_retries", "park_after", "provider_limits", "prices"),
    *("turn_retention", "events_retention", "memory_ttl", "approval_timeout"),
    *("max_tool_result_bytes", "max_depth", "max_children", "unknown_agent_wait"),
    *("models", "prompt_timeout", "request_policy", "unstored_retention", "provider_patience"),
    *("list_limit", "ends_limit", "ends_retention"),
)
"""Settings that decide what happens to a turn, so they should be the same on all workers."""


def shared_settings(settings: Settings) -> dict[str, Any]:
    """The settings that should be the same for all workers, as plain data."""
    found = {name: getattr(settings, name) for name in SHARED if hasattr(settings, name)}
    return {name: to_jsonable_python(value) for name, value in found.items()}


def archive_mark(settings: Settings) -> str:
    """A hash of the archive's server and database, without user and password, which tells archives
    apart without naming them. Empty without an archive."""
    if not settings.archive_url:
        return ""
    scheme, _, rest = settings.archive_url.partition("://")
    place = rest.partition("?")[0].rpartition("@")[2].replace(":5432/", "/")
    # "postgres", "postgresql" and "postgresql+psycopg" are the same.
    return hashlib.sha256(f"{scheme[:6]} {place}".encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerReport:
    """A worker's answer about itself.

    Attributes:
        process: Identifies the process independently of its name.
        version: Its release.
        protocol: The version of the turn protocol that it writes.
        pool: The class of its pool.
        agents: The names of its agents.
        queues: The queues that it takes turns from.
        accepting: Whether it takes more turns.
        services: Its background services.
        settings: See `shared_settings`.
        redis: The address of its Redis, without the password.
        server: Identifies that Redis independently of its address; None until it is known.
        archive: See `archive_mark`; None if the worker does not report it.
        ahead: Seconds by which its clock is ahead of Redis's; None until that is known.
        checks: How many rounds of checks it has completed.
        checking: Whether a round is in progress.
        findings: What those checks found.
    """

    process: str = ""
    version: str = ""
    protocol: int = 0
    pool: str = ""
    agents: Sequence[str] = ()
    queues: Sequence[str] = ()
    accepting: bool = True
    services: Sequence[ServiceStatus] = ()
    settings: Mapping[str, Any]
    redis: str = ""
    server: str | None = None
    archive: str | None = None
    ahead: float | None = None
    checks: int = 0
    checking: bool = False
    findings: Sequence[Finding] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkerReport | None:
        """Read an answer; None if it is not a report, for example from a worker of an older
        release."""
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        if "settings" not in known:
            return None
        names = [field.name for field in fields(ServiceStatus)]
        known["services"] = [
            ServiceStatus(**{name: service[name] for name in names})
            for service in known.get("services", ())
        ]
        known["findings"] = [Finding.from_json(each) for each in known.get("findings", ())]
        return cls(**known)
