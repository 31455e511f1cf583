"""Tools: functions that a model may call."""

from typing import TYPE_CHECKING

from agentapi.lazy import lazily

if TYPE_CHECKING:
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

__getattr__, __dir__ = lazily(
    __name__,
    {
        "agentapi.tools.agents": (
            "AgentTool",
            "Handoff",
            "handoff",
        ),
        "agentapi.tools.base": (
            "BaseTool",
            "ToolFailed",
            "ToolSource",
            "Toolbox",
        ),
        "agentapi.tools.context": ("ToolContext",),
        "agentapi.tools.decorator": (
            "Approval",
            "Tool",
            "tool",
        ),
        "agentapi.tools.delegation": (
            "Delegate",
            "Delegation",
            "delegate",
        ),
        "agentapi.tools.mcp.server": ("McpServer",),
    },
)
