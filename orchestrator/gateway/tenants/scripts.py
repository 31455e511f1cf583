"""The Lua scripts that count what tenants use, in `orchestrator/gateway/tenants/lua`."""

from __future__ import annotations

from typing import Final

from agentapi.redis.scripts import ScriptSet

SCRIPTS: Final = ScriptSet(
    "orchestrator.gateway.tenants",
    ("admit", "audit", "charge", "list_chat", "rate", "release", "settle"),
)
"""One script for each change of state."""
