"""An agent with the tools of an MCP server. Each worker process starts its own server."""

from __future__ import annotations

import asyncio
import os
import sys

from agentapi import Agent, McpServer

PROVIDER = os.environ.get("AGENTAPI_EXAMPLE_PROVIDER", "offline")

notes = McpServer("notes", command=[sys.executable, "-m", "examples.mcp_server"])
secretary = Agent(
    name="secretary", system_prompt="You look after my notes.", provider=PROVIDER, tools=[notes]
)


async def main() -> None:
    for spec in (await secretary.toolbox()).specs:
        print(f"{spec.name}: {spec.description.splitlines()[0]}")
    print(await secretary.run('/notes_read_note {"title": "shopping"}'))
    print(await secretary.run('/notes_read_note {"title": "secrets"}'))


if __name__ == "__main__":
    asyncio.run(main())
