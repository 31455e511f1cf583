"""Tools: functions that a model may call."""

from agentapi.tools.context import ToolContext
from agentapi.tools.decorator import Tool, tool

__all__ = ["Tool", "ToolContext", "tool"]
