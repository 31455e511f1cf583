"""The agent loop: model calls, tool calls, and the fallback chain."""
