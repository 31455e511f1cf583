"""`top`: the fleet, live."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from orchestrator.cli.console import console, print_json, real
from orchestrator.cli.failures import CommandFailed, ExitCode
from orchestrator.cli.options import LOOK, Json

if TYPE_CHECKING:
    from orchestrator.cli.fleet_frame import Order
    from orchestrator.cli.keys import Keys
    from orchestrator.fleet import FleetReader, FleetSnapshot

_LOOK: Final = 0.5
"""Seconds between two checks of the terminal's size."""

_QUIT: Final = frozenset("qQ\x04\x1b")
_TERMINATED: Final = 128 + signal.SIGTERM


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=LOOK)(top)


def top(
    once: Annotated[bool, typer.Option("--once", help="Print one frame and exit.")] = False,
    interval: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds between two frames.")
    ] = 2.0,
    as_json: Json = False,
) -> None:
    """Show the fleet live: workers, running and waiting turns, providers, failures, cost.

    Keys: q quits, s sorts the running turns by time, worker or agent, p pauses. If standard output
    is not a terminal, it prints one frame. With --json one object on each line, until Ctrl-C.
    """
    from orchestrator.client import Orchestrator
    from orchestrator.fleet import FleetReader

    with Orchestrator() as orchestrator:
        reader = FleetReader(orchestrator.settings, orchestrator.store)
        try:
            if once or not (as_json or sys.stdout.isatty()):
                _print_once(reader, as_json=as_json)
            elif as_json:
                _print_json_for_ever(reader, interval)
            else:
                _Screen(reader, interval).run()
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        finally:
            reader.close()


def _print_once(reader: FleetReader, *, as_json: bool) -> None:
    snapshot = reader.read()
    if not snapshot.answering and snapshot.broker_fault is None:
        # A starting worker may miss the first question.
        snapshot = reader.read()
    if as_json:
        print_json(snapshot_json(snapshot))
    else:
        from orchestrator.cli.fleet_frame import frame

        console.print(frame(snapshot, width=console.width, faults=False))
    _raise_fault(snapshot)


def _raise_fault(snapshot: FleetSnapshot) -> None:
    """Raise the faults in a single snapshot, so that a script notices them.

    Raises:
        CommandFailed: Redis, a shard of it, the broker or the workers do not answer.
    """
    for fault, code in (
        (snapshot.redis_fault, "store_unavailable"),
        ("; ".join(snapshot.gaps) or None, "store_unavailable"),
        (snapshot.broker_fault, "broker_unavailable"),
        (
            None if snapshot.answering else "no worker answers: start one with `agentapi worker`",
            "no_workers",
        ),
    ):
        if fault is not None:
            raise CommandFailed(fault, code=code, exit_code=ExitCode.UNAVAILABLE)


def _print_json_for_ever(reader: FleetReader, interval: float) -> None:
    while True:
        began = time.monotonic()
        print_json(snapshot_json(reader.read()))
        time.sleep(max(0.0, began + interval - time.monotonic()))


def snapshot_json(snapshot: FleetSnapshot) -> dict[str, Any]:
    """A snapshot as JSON-like values."""
    from pydantic_core import to_jsonable_python

    from orchestrator.cli.views import record_json

    return {
        **record_json(snapshot),
        "slots": snapshot.slots,
        "used": snapshot.used,
        "rate": round(snapshot.rate, 3),
        "minute": to_jsonable_python(snapshot.minute),
        "workers": [
            {
                "name": worker.name,
                "state": worker.state.value,
                "silent": round(worker.silent, 3),
                **to_jsonable_python(worker.activity or {}),
            }
            for worker in snapshot.workers
        ],
        "failures": None
        if snapshot.failures is None
        else [record_json(turn) for turn in snapshot.failures],
    }


class _Readings:
    """Reads snapshots in a thread, so that keys do not wait for the workers' answers."""

    def __init__(self, reader: FleetReader, interval: float, keys: Keys) -> None:
        self._reader = reader
        self._interval = interval
        self._keys = keys
        self._stopped = threading.Event()
        self._newest: FleetSnapshot | None = None
        self._error: Exception | None = None
        # A daemon thread, so that the command can end during a read.
        self._thread = threading.Thread(target=self._run, name="agentapi-top", daemon=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Read until the block ends."""
        self._thread.start()
        try:
            yield
        finally:
            self._stopped.set()

    def newest(self) -> FleetSnapshot | None:
        """The newest snapshot; None before the first.

        Raises:
            Exception: The reading failed unexpectedly.
        """
        if self._error is not None:
            raise self._error
        return self._newest

    def _run(self) -> None:
        try:
            # The store answers immediately; the workers' answers follow a second later.
            ask = False
            while not self._stopped.is_set():
                began = time.monotonic()
                self._newest = self._reader.read(ask_workers=ask)
                self._keys.wake()
                if ask:
                    self._stopped.wait(max(0.0, began + self._interval - time.monotonic()))
                ask = True
        except Exception as error:
            self._error = error
            self._keys.wake()


class _Screen:
    """The frame on the terminal, and the state that keys change."""

    def __init__(self, reader: FleetReader, interval: float) -> None:
        from orchestrator.cli.fleet_frame import Order
        from orchestrator.cli.keys import Keys

        self._keys = Keys()
        self._readings = _Readings(reader, interval, self._keys)
        self._order: Order = Order.TIME
        self._paused = False
        self._shown: FleetSnapshot | None = None

    def run(self) -> None:
        """Draw until the user quits.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
        with self._keys, self._readings.running():
            if console.is_dumb_terminal:
                self._print_frames()
            else:
                self._draw_live()

    def _draw_live(self) -> None:
        from rich.live import Live

        terminal = real(console)
        with Live(console=terminal, screen=True, auto_refresh=False) as live:
            drawn: tuple[Any, ...] = ()
            while True:
                now = (self._current(), terminal.size, self._order, self._paused)
                if now != drawn:
                    live.update(self._picture(height=terminal.size.height), refresh=True)
                    drawn = now
                if not self._obey():
                    return

    def _print_frames(self) -> None:
        """Print frames one below the other, for a terminal that cannot move its cursor."""
        while True:
            before, now = self._shown, self._current()
            if now is not None and now is not before:
                console.print(self._picture(height=None))
                console.print()
            if not self._obey():
                return

    def _current(self) -> FleetSnapshot | None:
        newest = self._readings.newest()
        if not self._paused:
            self._shown = newest
        return self._shown

    def _picture(self, *, height: int | None) -> Any:
        from orchestrator.cli.fleet_frame import frame

        if self._shown is None:
            return ""
        paused = "p resume (paused)" if self._paused else "p pause"
        foot = f"q quit  s sort: {self._order}  {paused}"
        return frame(self._shown, width=console.width, height=height, order=self._order, foot=foot)

    def _obey(self) -> bool:
        """Wait for keys or a new snapshot; returns whether to continue."""
        try:
            keys = self._keys.wait(_LOOK)
        except EOFError:
            return False
        for key in keys:
            if key in _QUIT:
                return False
            if key in "sS":
                self._order = self._order.next
            elif key in "pP":
                self._paused = not self._paused
        return True
