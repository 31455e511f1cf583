"""Tools: functions that a model may call."""

from agentapi.tools.agents import AgentTool, Handoff, handoff
from agentapi.tools.base import BaseTool, Toolbox, ToolFailed, ToolSource
from agentapi.tools.context import ToolContext
from agentapi.tools.decorator import Approval, Tool, tool
from agentapi.tools.delegation import Delegate, Delegation, delegate
from agentapi.tools.mcp.server import McpServer

__all__ = [
    "AgentTool",
    "Approval",
    "BaseTool",
    "Delegate",
    "Delegation",
    "Handoff",
    "McpServer",
    "Tool",
    "ToolContext",
    "ToolFailed",
    "ToolSource",
    "Toolbox",
    "delegate",
    "handoff",
    "tool",
]
