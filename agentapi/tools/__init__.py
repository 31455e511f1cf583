"""Tools: functions that a model may call."""

from agentapi.tools.agents import AgentTool, Handoff, handoff
from agentapi.tools.context import ToolContext
from agentapi.tools.decorator import Approval, Tool, tool
from agentapi.tools.delegation import Delegate, Delegation, delegate

__all__ = [
    "AgentTool",
    "Approval",
    "Delegate",
    "Delegation",
    "Handoff",
    "Tool",
    "ToolContext",
    "delegate",
    "handoff",
    "tool",
]
