"""Agents with MCP servers, for worker processes under test."""

from __future__ import annotations

import os
import sys

from agentapi import Agent, McpServer

over_http = Agent(
    name="over_http",
    provider="offline",
    tools=[McpServer("web", url=os.environ.get("SHELF_URL", "http://127.0.0.1:9/mcp"))],
)
over_stdio = Agent(
    name="over_stdio",
    provider="offline",
    tools=[McpServer("shelf", command=[sys.executable, "-m", "tests.fakes.mcp_server"])],
)
