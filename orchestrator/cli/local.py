"""`up` and `demo`: run a whole stack on this machine."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from agentapi import load_settings
from orchestrator.cli.console import console, errors
from orchestrator.stack import Stack

EXAMPLES = ("examples.agents",)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(demo)


def up(
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    flower: Annotated[bool, typer.Option(help="Start Flower.")] = True,
    gateway: Annotated[bool, typer.Option(help="Start the gateway.")] = True,
    agents: Annotated[
        str | None,
        typer.Option(
            help="Modules with agents, separated by commas. [AGENTAPI_AGENTS, or examples]"
        ),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Folder for data and logs.")] = Path(".agentapi/up"),
) -> None:
    """Run Valkey, workers, the gateway and Flower in the foreground, until Ctrl-C.

    If AGENTAPI_REDIS_URL is in the environment, that server is used and no Valkey is started.
    """
    settings = load_settings()
    modules = tuple(agents.split(",")) if agents else settings.agents or EXAMPLES
    stack = Stack(
        folder,
        agents=modules,
        workers=workers,
        flower=flower,
        gateway=gateway,
        redis_url=os.environ.get("AGENTAPI_REDIS_URL"),
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with console.status("starting"):
        stack.start()
    try:
        console.print(_addresses(stack, modules))
        while not stop.wait(0.5):
            for child in stack.children:
                child.check()
    finally:
        errors.print("stopping; running turns may finish within AGENTAPI_SHUTDOWN_GRACE")
        stack.stop()


def _addresses(stack: Stack, modules: tuple[str, ...]) -> Table:
    table = Table(show_header=False)
    table.add_row("Redis", stack.redis_url)
    table.add_row("gateway", f"{stack.gateway_url}/v1" if stack.gateway_url else "not started")
    table.add_row("Flower", stack.flower_for_people or "not started")
    table.add_row("workers", ", ".join(f"{w.name} (pid {w.pid})" for w in stack.workers))
    table.add_row("agents", ", ".join(modules))
    table.add_row("logs", str(stack.folder / "logs"))
    table.add_row("try", f"AGENTAPI_REDIS_URL={stack.redis_url} agentapi chat support")
    return table


def demo(
    provider: Annotated[
        str,
        typer.Option(
            help="offline, openai, openrouter or gemini; the key comes from the environment."
        ),
    ] = "offline",
    conversations: Annotated[int, typer.Option(min=1, help="Conversations at a time.")] = 40,
    turns: Annotated[int, typer.Option(min=1, help="Turns in each conversation.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
) -> None:
    """Run overlapping conversations on a temporary stack, and check every history."""
    from orchestrator.demo import run_demo

    well = run_demo(
        console,
        provider=provider,
        conversations=conversations,
        turns=turns,
        workers=workers,
    )
    raise typer.Exit(0 if well else 1)
