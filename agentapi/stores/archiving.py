"""Conversations between Redis and the archive; see docs/guides/archive.md."""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 600.0
"""Seconds within which a copy must be complete; afterwards it is a leftover, and is deleted."""

LEFTOVER_AGE: Final = 3600.0
"""Seconds for which a copy must have meant nothing before it is deleted. A failover, a restart of
Redis or its backup may bring back the marker that named it."""

MARKER: Final = frozenset(
    {"created", "updated", "user", "tenant", "agent", "ttl", "metadata", "turns", "steps"}
    | {"tokens", "cost", "epoch", "generation", "refers", "was"}
)
"""Fields of a conversation's record that stay in Redis: what lists show and scripts compare. They
may change while the rest is in the archive, so they do not come back from there."""

TRANSIENT: Final = frozenset({"archived", "returned"})
"""Fields that say where a conversation is stored. They do not belong to its content."""
