"""Tools for testing your agents: scripts, assertions and fixtures (`agentapi.testing.plugin`)."""

from agentapi.testing.checks import (
    assert_called,
    assert_completed,
    assert_failed,
    assert_not_called,
    assert_valid_history,
    tool_calls,
)
from agentapi.testing.script import (
    Act,
    ScriptedProvider,
    ScriptEnded,
    ScriptUnused,
    after,
    call,
    calls,
    says,
    scripted,
)

__all__ = [
    "Act",
    "ScriptEnded",
    "ScriptUnused",
    "ScriptedProvider",
    "after",
    "assert_called",
    "assert_completed",
    "assert_failed",
    "assert_not_called",
    "assert_valid_history",
    "call",
    "calls",
    "says",
    "scripted",
    "tool_calls",
]
