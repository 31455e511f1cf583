"""Runs all benchmarks, and compares this runtime with alternatives: ``make bench``."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agentapi import AgentAPIError
from benchmarks import alone, gateway_cost, lists, metered, stores, traced, versus
from benchmarks import archive as moved
from benchmarks import console as pages_of_console
from benchmarks import memory as kept
from benchmarks.contest import CONTENDERS, Contender, Servers
from benchmarks.environments import CACHE, CannotInstall
from benchmarks.results import Results
from benchmarks.running import Running
from benchmarks.targets import targets_table
from orchestrator.stack import start_valkey
from tools.postgres import PostgresFault, postgres

CASES = (
    "throughput",
    "in-flight",
    "history",
    "queue",
    "partition",
    "tool",
    "streaming",
    "metrics",
    "traces",
    "idle",
    "lists",
    "console",
    "memory",
    "gateway",
    "archive",
    "stores",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is measured, and how much.

    Attributes:
        cases: The cases to run, from `CASES`.
        contenders: The systems to compare.
        rounds: Number of rounds, each with all contenders.
        turns: Turns of a fast contender in a throughput round.
        at_once: Turns in flight at the same time.
        delay: Seconds that the slow model takes.
        workers: Number of idle workers.
        conversations: Number of idle conversations.
        listed: Number of conversations in lists, with ten times as many turns.
        seconds: Seconds that the idle workers are measured.
        minutes: Time limit: a round that would probably end later is not started.
        processes: Numbers of worker processes for the throughput. Latency is measured with the
            first number, `enqueue` alone after the last.
        stores: Servers to compare, from `stores.SERVERS`.
    """

    cases: Sequence[str]
    contenders: Sequence[Contender]
    rounds: int = 3
    turns: int = 1000
    at_once: int = 1000
    delay: float = 2.0
    workers: int = 10
    conversations: int = 100_000
    listed: int = 10_000
    seconds: float = 10.0
    minutes: float = 13.5
    processes: Sequence[int] = (1, 2)
    stores: Sequence[str] = stores.ALL


Step = tuple[str, Callable[[], None]]


def main(
    case: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(CASES)}.")] = None,
    contender: Annotated[
        list[str] | None, typer.Option(help="Part of a contender's name; all by default.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often.")] = 3,
    turns: Annotated[int, typer.Option(min=20, help="Turns of a round of throughput.")] = 1000,
    listed: Annotated[
        int, typer.Option(min=1, help="Conversations in lists, with ten times as many turns.")
    ] = 10_000,
    minutes: Annotated[
        float, typer.Option(help="No round begins that would end later than this.")
    ] = 13.5,
    json: Annotated[Path | None, typer.Option(help="Where to write the results.")] = None,
) -> None:
    """Measure, print tables, and write JSON."""
    unknown = set(case or ()) - set(CASES)
    if unknown:
        raise typer.BadParameter(f"no case {', '.join(unknown)}: expected {', '.join(CASES)}")
    chosen = [
        one for one in CONTENDERS if not contender or any(part in one.name for part in contender)
    ]
    if not chosen:
        names = "; ".join(one.name for one in CONTENDERS)
        raise typer.BadParameter(f"no such contender: expected a part of {names}")
    # When the output is a file, tables get the width of a wide screen.
    console = Console(width=None if sys.stdout.isatty() else 140)
    began = time.monotonic()
    plan = Plan(
        cases=case or CASES,
        contenders=chosen,
        rounds=rounds,
        turns=turns,
        listed=listed,
        minutes=minutes,
    )
    results = run(plan, console)
    results.show(console)
    if table := targets_table(results):
        console.print(table)
    name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S.json")
    target = json or CACHE / "results" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(results.as_json(_as_settings(plan), time.monotonic() - began))
    console.print(f"{time.monotonic() - began:.0f} s; written to {target}")


def run(plan: Plan, console: Console) -> Results:
    """Measure all rounds. Everything that was started is stopped, even after an error."""
    results = Results()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        progress = stack.enter_context(
            Progress(
                TextColumn("{task.description:60}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
        )
        plan = replace(plan, contenders=_installed(plan.contenders, results, progress))
        valkey, url = start_valkey(folder)
        stack.callback(valkey.stop)
        servers = Servers(folder=folder, redis_url=url)
        if any(one.needs_postgres for one in plan.contenders):
            try:
                servers = replace(servers, postgres=stack.enter_context(postgres()))
            except PostgresFault as error:
                kept = [one for one in plan.contenders if not one.needs_postgres]
                for one in set(plan.contenders) - set(kept):
                    results.leave_out(one.name, str(error))
                plan = replace(plan, contenders=kept)
        _measure(plan, servers, results, progress)
    return results


def _installed(
    contenders: Sequence[Contender], results: Results, progress: Progress
) -> list[Contender]:
    """The contenders whose environment exists or can be created."""
    found: list[Contender] = []
    task = progress.add_task("", total=len(contenders))
    for one in contenders:
        progress.update(task, description=f"environment of {one.name}")
        try:
            if one.environment is not None:
                one.environment.interpreter()
            found.append(one)
        except CannotInstall as error:
            results.leave_out(one.name, str(error))
        progress.advance(task)
    progress.remove_task(task)
    return found


def _measure(plan: Plan, servers: Servers, results: Results, progress: Progress) -> None:
    """Measure round by round, so that changes of the machine affect all contenders. A round that
    would end too late is not started."""
    began = time.monotonic()
    for number in range(plan.rounds):
        begun = time.monotonic()
        where = f"round {number + 1} of {plan.rounds}"
        _carry_out(list(_round(plan, servers, results)), where, results, progress)
        now = time.monotonic()
        if now - began + (now - begun) > plan.minutes * 60:
            break
    once: list[Step] = []
    if "idle" in plan.cases:
        once.append(("idle", partial(_idle, plan, servers, results)))
    if "lists" in plan.cases:
        once.append(("lists", partial(_lists, plan, servers, results)))
    if "console" in plan.cases:
        once.append(("console", partial(_console, plan, servers, results)))
    if "memory" in plan.cases:
        once.append(("memory", partial(kept.memory, results, servers, turns=2 * plan.turns)))
    if "gateway" in plan.cases:
        measure = partial(gateway_cost.cost, results, servers, turns=plan.turns)
        once.append(("gateway", measure))
    if "archive" in plan.cases:
        count = max(40, plan.turns // 5)
        once.append(("archive", partial(moved.archive, results, servers, conversations=count)))
    if "stores" in plan.cases:
        compare = partial(stores.compare, results, servers, turns=plan.turns, rounds=plan.rounds)
        once.append(("stores", partial(compare, names=plan.stores)))
    _carry_out(once, "once", results, progress)


def _carry_out(steps: Sequence[Step], where: str, results: Results, progress: Progress) -> None:
    task = progress.add_task(where, total=len(steps))
    for name, step in steps:
        progress.update(task, description=f"{where}: {name}")
        try:
            step()
        except (AgentAPIError, RuntimeError, TimeoutError) as error:
            # The other contenders are still measured.
            results.leave_out(name, str(error))
        progress.advance(task)


def _round(plan: Plan, servers: Servers, results: Results) -> Iterable[Step]:
    for one in plan.contenders:
        if "throughput" in plan.cases:
            measure = partial(versus.throughput, results, one, servers, turns=plan.turns)
            for processes in plan.processes:
                also = (
                    *([versus.latency] if processes == plan.processes[0] else []),
                    *([versus.enqueue] if processes == plan.processes[-1] else []),
                )
                name = f"throughput of {one.name}"
                yield name, partial(measure, processes=processes, also=also)
    for one in plan.contenders:
        # DBOS is left out: its throughput shows that it cannot keep so many turns in flight.
        fast = one.scale == 1 or not one.parallel
        if "in-flight" in plan.cases and one.history and fast and not one.env:
            flight = partial(versus.in_flight, results, one, servers)
            yield f"in flight: {one.name}", partial(flight, at_once=plan.at_once, delay=plan.delay)
    if chosen := {name: case for name, case in _alone(plan, results) if name in plan.cases}:
        names = ", ".join(chosen)
        yield names, partial(alone.on_one_stack, servers, list(chosen.values()))
    if "metrics" in plan.cases:
        yield "metrics", partial(metered.metrics, results, servers, turns=plan.turns)
    if "traces" in plan.cases:
        yield "traces", partial(traced.traces, results, servers, turns=plan.turns)


def _idle(plan: Plan, servers: Servers, results: Results) -> None:
    """Runs once, because it mostly counts instead of timing."""
    alone.idle(
        results,
        servers,
        workers=plan.workers,
        conversations=plan.conversations,
        seconds=plan.seconds,
    )


def _lists(plan: Plan, servers: Servers, results: Results) -> None:
    """Runs once, because it has many short rounds of its own."""
    lists.cost(results, servers, turns=2 * plan.turns)
    lists.pages(results, servers, turns=10 * plan.listed, conversations=plan.listed)


def _console(plan: Plan, servers: Servers, results: Results) -> None:
    """Runs once, because it requests each page many times."""
    pages_of_console.pages(results, servers, turns=10 * plan.listed, conversations=plan.listed)


def _alone(plan: Plan, results: Results) -> Iterable[tuple[str, Callable[[Running], None]]]:
    few = max(10, plan.turns // 10)
    yield "history", partial(alone.histories, results, turns=few // 2)
    yield "queue", partial(alone.queued, results)
    yield "partition", partial(alone.hot_partition, results, turns=plan.turns // 2)
    yield "tool", partial(alone.tool_step, results, turns=plan.turns // 3)
    yield "streaming", partial(alone.streaming, results, turns=few)


def _as_settings(plan: Plan) -> dict[str, object]:
    contenders = {
        one.name: list(one.environment.requirements) if one.environment else ["this environment"]
        for one in plan.contenders
    }
    return {
        "cases": list(plan.cases),
        "contenders": contenders,
        "rounds": plan.rounds,
        "minutes": plan.minutes,
        "turns": plan.turns,
        "at_once": plan.at_once,
        "delay": plan.delay,
        "workers": plan.workers,
        "conversations": plan.conversations,
        "listed": plan.listed,
        "seconds": plan.seconds,
        "processes": list(plan.processes),
        "stores": list(plan.stores),
    }


if __name__ == "__main__":
    typer.run(main)
