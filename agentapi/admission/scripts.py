"""The Lua scripts about providers, in `agentapi/admission/lua`."""

from __future__ import annotations

from typing import Final

from agentapi.redis.scripts import ScriptSet

SCRIPTS: Final = ScriptSet("agentapi.admission", ("admit", "answer", "fail", "settle"))
"""One script for each change of state."""
