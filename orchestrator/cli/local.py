"""`up` and `demo`: run a whole stack on this machine."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.console import console, errors, note, own_command, print_json, real
from orchestrator.cli.failures import CommandFailed, ExitCode
from orchestrator.cli.options import RUN, Json

if TYPE_CHECKING:
    from orchestrator.stack import Stack

EXAMPLES = ("examples.agents",)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=RUN)(up)
    app.command(rich_help_panel=RUN)(demo)


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
    as_json: Json = False,
) -> None:
    """Run Valkey, workers, the gateway and Flower in the foreground, until Ctrl-C.

    A worker that ends is restarted. If AGENTAPI_REDIS_URL is set in the environment, that server is
    used and no Valkey is started. The example agents start with a few conversations, for the
    console.
    """
    from agentapi import load_settings
    from orchestrator.stack import Stack

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
    stop = _stop_signal()
    with errors.status("starting"):
        stack.start()
    try:
        if modules == EXAMPLES and stack.valkey is not None:
            _begin_showcase(stack)
        _print_addresses(stack, modules, as_json=as_json)
        _wait(stack, stop)
    finally:
        errors.print("stopping; running turns may finish within AGENTAPI_SHUTDOWN_GRACE")
        stack.stop()


def _stop_signal() -> threading.Event:
    """An event that Ctrl-C and SIGTERM set."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _wait(stack: Stack, stop: threading.Event) -> None:
    """Wait for the event, and restart workers that end; fails if another process ends."""
    from agentapi.errors import ConfigurationError
    from orchestrator.stack.keeper import WorkerKeeper

    keeper = WorkerKeeper(stack, note)
    try:
        while not stop.wait(0.5):
            keeper.look()
    except ConfigurationError as error:
        # The configuration is not known to be wrong.
        failed = ExitCode.FAILED
        raise CommandFailed(str(error), code="process_ended", exit_code=failed) from error


def _begin_showcase(stack: Stack) -> None:
    from orchestrator.client import Orchestrator
    from orchestrator.demo import begin_showcase

    if os.environ.get("AGENTAPI_EXAMPLE_PROVIDER", "offline") == "offline":
        with Orchestrator(stack.settings) as orchestrator:
            begin_showcase(orchestrator)


def _print_addresses(stack: Stack, modules: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print_json(_addresses(stack, modules))
        return
    from rich.table import Table

    from agentapi.urls import without_password

    table = Table(show_header=False)
    table.add_row("Redis", without_password(stack.redis_url))
    table.add_row("console", stack.console_url or "not started")
    table.add_row("gateway", f"{stack.gateway_url}/v1" if stack.gateway_url else "not started")
    table.add_row("Flower", stack.flower_for_people or "not started")
    table.add_row("workers", ", ".join(f"{w.name} (pid {w.pid})" for w in stack.workers))
    table.add_row("agents", ", ".join(modules))
    table.add_row("logs", str(stack.folder / "logs"))
    console.print(table)
    # Not in the table, which wraps long lines: people copy and paste it.
    command = f"{own_command()} chat support"
    if stack.valkey is not None:
        command = f"AGENTAPI_REDIS_URL={stack.redis_url} {command}"
    console.print(f"try: {command}", markup=False, highlight=False, soft_wrap=True)


def _addresses(stack: Stack, modules: tuple[str, ...]) -> dict[str, Any]:
    from agentapi.urls import without_password

    user, password = stack.flower_auth
    return {
        "redis_url": without_password(stack.redis_url),
        "gateway_url": stack.gateway_url,
        "console_url": stack.console_url,
        "flower_url": stack.flower_url,
        "flower_auth": f"{user}:{password}" if stack.flower_url else None,
        "workers": [{"name": worker.name, "pid": worker.pid} for worker in stack.workers],
        "agents": list(modules),
        "logs": str(stack.folder / "logs"),
    }


def demo(
    provider: Annotated[
        str,
        typer.Option(
            help="offline, openai, openrouter or gemini; the key comes from the environment."
        ),
    ] = "offline",
    conversations: Annotated[int, typer.Option(min=1, help="Conversations at the same time.")] = 40,
    turns: Annotated[int, typer.Option(min=1, help="Turns in each conversation.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="Start the gateway too, and keep everything running until Ctrl-C, to view the "
            "conversations in the console.",
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print whether all is well as JSON; the report goes to stderr."
        ),
    ] = False,
) -> None:
    """Run overlapping conversations on a temporary stack, and check every history."""
    from orchestrator.demo import run_demo

    well = run_demo(
        real(errors if as_json else console),
        provider=provider,
        conversations=conversations,
        turns=turns,
        workers=workers,
        keep=_keep if keep else None,
    )
    if as_json:
        print_json(
            {"provider": provider, "conversations": conversations, "turns": turns, "ok": well}
        )
    raise typer.Exit(0 if well else 1)


def _keep(stack: Stack) -> None:
    """Keep the demo's stack running, with a few more conversations of other kinds."""
    stop = _stop_signal()
    _begin_showcase(stack)
    errors.print(f"console {stack.console_url}\nrunning until Ctrl-C")
    _wait(stack, stop)
