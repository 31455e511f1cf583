"""`worker`: run the agents."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.cli.options import RUN

if TYPE_CHECKING:
    from agentapi import Settings
    from orchestrator.stack.worker_fleet import Changes

KILL_MARGIN: Final = 15.0
"""Seconds that a process has after its turns' grace period to hand them back."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=RUN)(worker)


def worker(
    agents: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE", help="Module with agents; may be repeated. [AGENTAPI_AGENTS]"
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum turns in flight in one process. [AGENTAPI_CONCURRENCY]"),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Name of the worker, unique on this machine.")
    ] = "worker",
    processes: Annotated[
        int,
        typer.Option(min=1, help="Worker processes, each on one core. One that dies is restarted."),
    ] = 1,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload", help="Restart when a Python file in this folder changes. For development."
        ),
    ] = False,
    supervise: Annotated[
        bool,
        typer.Option(
            "--supervise",
            help="Supervise the worker even with a single process: restart it if it dies, replace "
            "it on SIGHUP. Always on with several processes.",
        ),
    ] = False,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            help="A file for probes that is touched every second while a process takes turns. "
            "Implies --supervise."
        ),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="Minimum level of log lines. [AGENTAPI_LOG_LEVEL]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write log lines as JSON.")] = False,
    celery_flags: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- CELERY_FLAGS]", help="Further options for `celery worker`."),
    ] = None,
) -> None:
    """Run agents: take turns from the queues and run them, until SIGTERM or Ctrl-C.

    Running turns then have AGENTAPI_SHUTDOWN_GRACE seconds to finish; a second signal hands them to
    other workers immediately. With --supervise or several processes, SIGHUP replaces the processes
    one by one.
    """
    flags = _checked(celery_flags or [])
    if as_json:
        os.environ["AGENTAPI_LOG_FORMAT"] = "json"
    settings = _settings(agents, concurrency, log_level)
    commands, others = _commands(name, processes, flags, settings)
    if processes == 1 and not (reload or supervise or ready_file):
        # The worker replaces this process, so signals and its exit code need no forwarding.
        os.execv(sys.executable, commands[name])  # noqa: S606
    raise typer.Exit(_run_fleet(commands, others, settings, reload=reload, ready_file=ready_file))


def _checked(flags: list[str]) -> list[str]:
    """Check Celery's flags and the current folder; returns the flags."""
    from orchestrator.stack.worker_command import refuse_own_flags, refuse_shadowed_packages

    refuse_own_flags(flags)
    refuse_shadowed_packages(Path.cwd())
    return flags


def _commands(
    name: str, processes: int, flags: Sequence[str], settings: Settings
) -> tuple[dict[str, list[str]], dict[str, tuple[str, list[str]]]]:
    """The commands of the processes by name, and the names and commands of their replacements."""
    from orchestrator.stack.worker_command import other_name, worker_command, worker_names

    def command(node: str) -> list[str]:
        return worker_command(node, flags, log_format=settings.log_format)

    names = worker_names(name, processes)
    others = {each: (other_name(each), command(other_name(each))) for each in names}
    return {each: command(each) for each in names}, others


def _run_fleet(
    commands: Mapping[str, list[str]],
    others: Mapping[str, tuple[str, list[str]]],
    settings: Settings,
    *,
    reload: bool,
    ready_file: Path | None,
) -> int:
    import asyncio

    from agentapi.logs import configure_logging
    from orchestrator.stack.announcer import Announcer, without_notify
    from orchestrator.stack.worker_command import metrics_ports
    from orchestrator.stack.worker_fleet import WorkerFleet

    configure_logging(settings.log_level, settings.log_format)
    own = metrics_ports(list(commands), settings.metrics_port)
    announcer = Announcer(ready_file, os.environ)
    changes = _changes_in(Path.cwd()) if reload else None

    async def run() -> int:
        fleet = WorkerFleet(
            commands,
            env=without_notify(os.environ),
            kill_after=settings.shutdown_grace + KILL_MARGIN,
            changes=changes,
            own=own,
            others=others,
            announcer=announcer,
        )
        return await fleet.run()

    return asyncio.run(run())


def _settings(agents: list[str] | None, concurrency: int | None, log_level: str | None) -> Settings:
    """Write the options to the environment, where the worker processes read them.

    Raises:
        ConfigurationError: A setting is not valid, or there are no agents to serve.
    """
    from agentapi import load_settings
    from agentapi.errors import ConfigurationError

    if agents:
        os.environ["AGENTAPI_AGENTS"] = ",".join(agents)
    if concurrency is not None:
        os.environ["AGENTAPI_CONCURRENCY"] = str(concurrency)
    if log_level is not None:
        os.environ["AGENTAPI_LOG_LEVEL"] = log_level.upper()
    settings = load_settings()
    if not settings.agents:
        raise ConfigurationError(
            "there are no agents to run: name their modules with --agents or AGENTAPI_AGENTS"
        )
    return settings


def _changes_in(folder: Path) -> Changes:
    """Watch the Python files of a folder, except virtual environments and caches.

    Raises:
        ConfigurationError: The library that watches files is not installed.
    """
    import logging

    from agentapi.extras import needs_extra

    with needs_extra("reload", "--reload"):
        import watchfiles

    is_python = watchfiles.PythonFilter()

    def is_watched(change: watchfiles.Change, path: str) -> bool:
        return is_python(change, path) and not _is_installed(Path(path), folder)

    async def changes() -> AsyncIterator[str]:
        async for found in watchfiles.awatch(folder, watch_filter=is_watched):
            yield ",".join(sorted({path.removeprefix(f"{folder}/") for _, path in found}))

    # The watcher also logs changes of files that it filters out.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    return changes


def _is_installed(path: Path, folder: Path) -> bool:
    """Whether a file belongs to a virtual environment inside the folder, whatever its name."""
    inside = path.relative_to(folder).parents if path.is_relative_to(folder) else ()
    # Exclude the folder itself, which may be an environment that contains the project.
    return any(
        parent.name == "site-packages" or (folder / parent / "pyvenv.cfg").is_file()
        for parent in inside[:-1]
    )
