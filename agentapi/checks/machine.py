"""The memory of this process, and the free memory of its machine or container."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from agentapi.checks.findings import Finding, ok, warn
from agentapi.checks.redis_server import megabytes

LEAST_LEFT: Final = 0.1
"""Share of the memory that should be free."""

_PAGE: Final = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryFacts:
    """Memory in bytes; None if the system does not report it.

    Attributes:
        used: Used by this process.
        left: Still available to processes here.
        limit: The total for all processes here.
    """

    used: int | None
    left: int | None
    limit: int | None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def memory(root: Path = Path("/")) -> MemoryFacts:
    """Read the memory of this process and of its container, or of its machine if there is no
    container.

    Args:
        root: Where `proc` and `sys` are.
    """
    total, available = _machine(root / "proc/meminfo")
    limit = _number(root / "sys/fs/cgroup/memory.max")
    taken = _number(root / "sys/fs/cgroup/memory.current")
    if limit is not None and taken is not None and (total is None or limit < total):
        # The kernel reclaims the file cache.
        taken -= _cached(root / "sys/fs/cgroup/memory.stat")
        return MemoryFacts(used=_resident(root), left=max(0, limit - taken), limit=limit)
    return MemoryFacts(used=_resident(root), left=available, limit=total)


def machine_finding(facts: MemoryFacts) -> Finding:
    """Is there memory left?"""
    used = "" if facts.used is None else f"the process uses {megabytes(facts.used)}; "
    if facts.left is None or not facts.limit:
        return ok("memory.worker", f"{used}the memory left is unknown")
    text = f"{used}{megabytes(facts.left)} of {megabytes(facts.limit)} are left"
    if facts.left >= LEAST_LEFT * facts.limit:
        return ok("memory.worker", text)
    return warn(
        "memory.worker_low",
        f"{text}: the operating system may kill the process",
        "Give the machine or container more memory, run fewer workers on it, or lower "
        "AGENTAPI_CONCURRENCY.",
    )


def _resident(root: Path) -> int | None:
    try:
        return int((root / "proc/self/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def _machine(path: Path) -> tuple[int | None, int | None]:
    found = _fields(path)
    total, available = found.get("MemTotal:"), found.get("MemAvailable:")
    if total is None or available is None:
        return None, None
    return total * 1024, available * 1024


def _cached(path: Path) -> int:
    return _fields(path).get("inactive_file", 0)


def _fields(path: Path) -> dict[str, int]:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
        return {parts[0]: int(parts[1]) for parts in lines if len(parts) > 1}
    except (OSError, ValueError):
        return {}


def _number(path: Path) -> int | None:
    try:
        # It may be "max".
        return int(path.read_text())
    except (OSError, ValueError):
        return None
