"""Cases in which all contenders run the same turn."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

from benchmarks.contenders.turn import WINDOW
from benchmarks.contest import BARE, BY_HAND, Contender, Entrant, Servers, entrant
from benchmarks.done import wait_until_done, wait_until_taken
from benchmarks.processes import usage
from benchmarks.results import Metric, Results
from benchmarks.stats import percentile

TIMEOUT = 120.0

_MS = 1000


def throughput(
    results: Results,
    contender: Contender,
    servers: Servers,
    *,
    processes: int,
    turns: int,
    also: Sequence[Callable[[Results, Entrant], None]] = (),
) -> None:
    """Measure turns per second from the first `enqueue` to the last reply.

    Args:
        results: Receives the measured values.
        contender: The measured system.
        servers: The servers that it uses.
        processes: Number of worker processes.
        turns: Number of turns for a fast contender.
        also: Further cases to measure on the same processes: `latency`, then `enqueue`.
    """
    count = max(20, int(turns * contender.scale))
    conversations = [f"c-{number}" for number in range(count)]
    case = f"throughput, {processes} worker process{'es' if processes > 1 else ''}"
    with entrant(contender, servers, processes=processes) as running:
        running.prepare(conversations)
        before, began = usage(running.pids).cpu, time.perf_counter()
        running.producer.send("enqueue", conversations)
        ended = _wait(running, conversations)
        cpu = usage(running.pids).cpu - before
        producer = running.producer.answer() if contender.history else {}
        _add(results, contender, case, "turns a second", "1/s", count / (ended - began))
        _add(results, contender, case, "processor time of workers, a turn", "ms", cpu / count * _MS)
        if producer:
            name = "processor time of the producer, a turn"
            _add(results, contender, case, name, "ms", producer["cpu"] / count * _MS)
        for measure in also:
            measure(results, running)


def _wait(running: Entrant, conversations: Sequence[str]) -> float:
    if running.contender.history:
        done = wait_until_done(running, conversations, length=WINDOW + 2, timeout=TIMEOUT)
        return done.last
    running.producer.answer()
    return wait_until_taken(running, TIMEOUT)


def latency(results: Results, running: Entrant) -> None:
    """Measure single turns, one after the other, on an idle system."""
    conversations = [f"l-{number}" for number in range(max(10, int(60 * running.contender.scale)))]
    running.prepare(conversations)
    seconds = running.ask(conversations)
    case = "latency of a turn on an idle system"
    for name, share in (("median", 0.5), ("99th percentile", 0.99)):
        metric = Metric(case=case, name=name, unit="ms", base=BARE)
        results.add(metric, running.contender.name, percentile(seconds, share) * _MS)


def enqueue(results: Results, running: Entrant) -> None:
    """Measure the producer alone, after the workers have ended."""
    count = max(20, int(400 * running.contender.scale))
    running.stop_workers()
    running.producer.send("enqueue", [f"e-{number}" for number in range(count)])
    found = running.producer.answer()
    case = "throughput of enqueue, no workers"
    _add(results, running.contender, case, "turns a second", "1/s", count / found["seconds"])
    name = "processor time of the producer, a turn"
    _add(results, running.contender, case, name, "ms", found["cpu"] / count * _MS)


def in_flight(
    results: Results, contender: Contender, servers: Servers, *, at_once: int, delay: float
) -> None:
    """Measure one worker process with very many turns in flight, which starts with a full queue.

    The ideal rate is the number of turns in flight divided by the model's seconds. Four times as
    many turns are enqueued, and the rate is measured after the first batch, because fewer are in
    flight before. A contender that runs one turn at a time gets only four.
    """
    case = f"{at_once:,} turns in flight in one worker process, model of {delay:g} s"
    count, first = (4 * at_once, at_once) if contender.parallel else (4, 1)
    conversations = [f"f-{number}" for number in range(count)]
    peak = {"memory": 0.0, "threads": 0.0}

    with entrant(contender, servers, processes=1, concurrency=at_once, delay=delay) as running:
        worker = running.workers[0]
        running.prepare(conversations, messages=2)

        def look() -> None:
            now = usage(running.pids, children=False)
            peak["memory"] = max(peak["memory"], now.memory)
            peak["threads"] = max(peak["threads"], now.threads)

        os.kill(worker.pid, signal.SIGSTOP)
        try:
            running.producer.send("enqueue", conversations)
            running.producer.answer()
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        before = usage(running.pids).cpu
        done = wait_until_done(
            running,
            conversations,
            length=4,
            timeout=TIMEOUT,
            at_once=at_once,
            every=0.05,
            meanwhile=look,
        )
        cpu = usage(running.pids).cpu - before
    share = done.rate_after(first) / (at_once / delay)
    _add(results, contender, case, "share of the ideal", "%", 100 * share)
    _add(results, contender, case, "memory of the worker", "MiB", peak["memory"])
    _add(results, contender, case, "threads of the worker", "", peak["threads"])
    name = "processor time of workers, a turn"
    _add(results, contender, case, name, "ms", cpu / len(conversations) * _MS)


def _add(
    results: Results, contender: Contender, case: str, name: str, unit: str, value: float
) -> None:
    results.add(Metric(case=case, name=name, unit=unit, base=BY_HAND), contender.name, value)
