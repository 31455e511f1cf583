"""The Lua scripts for providers, in `agentapi/admission/lua`."""

from __future__ import annotations

from typing import Final

from agentapi.redis.scripts import ScriptSet

SCRIPTS: Final = ScriptSet("agentapi.admission", ("admit", "answer", "fail", "settle", "used"))
"""All scripts: one for each change of state, and one that reads."""
