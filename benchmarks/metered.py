"""Measures what metrics add to the cost of a turn."""

from __future__ import annotations

import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from benchmarks.contest import Servers
from benchmarks.results import Metric, Results
from benchmarks.running import Running, runtime
from orchestrator.stack.processes import free_port

WITHOUT: Final = "without metrics"
WITH: Final = "with metrics"
CASE: Final = "metrics"
COST: Final = "processor time of workers, a turn"

BLOCKS: Final = 10
"""How many times the measurement alternates between the two stacks."""

_MS: Final = 1000


def metrics(results: Results, servers: Servers, *, turns: int) -> None:
    """Run turns with a tool call alternately on two stacks, one of which serves metrics.

    Args:
        results: Receives the processor time of a turn.
        servers: The second stack uses another database of the same Redis.
        turns: Number of turns for each stack.
    """
    spent = {WITHOUT: 0.0, WITH: 0.0}
    few = max(1, turns // (2 * BLOCKS))
    # Even two stacks without metrics differ by a few percent, so each stack serves metrics once.
    for metered_first in (False, True):
        for name, seconds in _side_by_side(servers, few, metered_first=metered_first).items():
            spent[name] += seconds
    metric = Metric(case=CASE, name=COST, unit="ms", base=WITHOUT)
    for name, seconds in spent.items():
        results.add(metric, name, seconds / (2 * few * BLOCKS) * _MS)


def _side_by_side(servers: Servers, few: int, *, metered_first: bool) -> dict[str, float]:
    """Seconds of processor time of both stacks, measured in blocks of a few turns."""
    port = free_port()
    beside = replace(servers, redis_url=servers.redis_url.rpartition("/")[0] + "/1")
    names = [WITH, WITHOUT] if metered_first else [WITHOUT, WITH]
    spent = dict.fromkeys(names, 0.0)
    with ExitStack() as stack:
        pairs = []
        for name, where in zip(names, (servers, beside), strict=True):
            served_at: dict[str, Any] = {"metrics_port": port} if name == WITH else {}
            pairs.append((name, stack.enter_context(runtime(where, **served_at))))
        for block in range(-1, BLOCKS):
            # The second stack finds a warmer machine, so the order alternates too.
            for name, running in pairs if block % 2 else reversed(pairs):
                cost = cost_of_turns(running, f"{block}", few)
                # The first block is a warm-up.
                spent[name] += cost if block >= 0 else 0.0
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as served:
            assert b"agentapi_turns_ended_total" in served.read()
    return spent


def cost_of_turns(running: Running, name: str, turns: int) -> float:
    """Seconds of processor time that the turns took."""
    before = running.cpu()
    conversations = [f"m{name}-{number}" for number in range(turns)]
    running.run_all("looker", conversations, '/look {"what": "the order"}')
    return running.cpu() - before
