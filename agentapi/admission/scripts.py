"""The Lua scripts for providers, in `agentapi/admission/lua`."""

from __future__ import annotations

from typing import Final

from agentapi.redis.scripts import ScriptSet

SCRIPTS: Final = ScriptSet("agentapi.admission", ("admit", "answer", "fail", "settle"))
"""All scripts, one per change of state."""
