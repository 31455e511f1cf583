"""Moving conversations between Redis and the archive; see docs/guides/archive.md."""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 600.0
"""Seconds within which a copy must be complete. After that it counts as abandoned and is
deleted."""

LEFTOVER_AGE: Final = 3600.0
"""Seconds for which a copy must have been unreferenced before it is deleted. A failover, a restart
of Redis or a restored backup may bring back the marker that refers to it."""

MARKER: Final = frozenset(
    {"created", "updated", "user", "tenant", "agent", "ttl", "metadata", "turns", "steps"}
    | {"tokens", "cost", "epoch", "generation", "refers", "was"}
)
"""Fields of a conversation's record that stay in Redis: what lists show and scripts compare. They
may change while the rest is in the archive, so they are never restored from it."""

TRANSIENT: Final = frozenset({"archived", "returned"})
"""Fields that say where a conversation is stored. They are not part of its content."""
