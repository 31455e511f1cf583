"""Measures what traces add to the cost of a turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from benchmarks.contest import Servers
from benchmarks.metered import BLOCKS, cost_of_turns
from benchmarks.results import Metric, Results
from benchmarks.running import runtime

WITHOUT: Final = "without traces"
SAMPLED: Final = "traces of 1 % of the turns"
ALL: Final = "traces of all turns"
NAMES: Final = (WITHOUT, SAMPLED, ALL)
CASE: Final = "traces"
COST: Final = "processor time of workers, a turn"

_MS: Final = 1000


def traces(results: Results, servers: Servers, *, turns: int) -> None:
    """Run turns with a tool call alternately on three stacks, two of which export traces.

    Args:
        results: Receives the processor time of a turn, including the export.
        servers: The other stacks use other databases of the same Redis.
        turns: Number of turns for each stack.
    """
    metric = Metric(case=CASE, name=COST, unit="ms", base=WITHOUT)
    few = max(1, turns // BLOCKS)
    # Even equal stacks differ by a few percent, so each has a different position in each round.
    place = len(results.values.get(metric, {}).get(WITHOUT, [])) % len(NAMES)
    names = (*NAMES[place:], *NAMES[:place])
    for name, seconds in _side_by_side(servers, few, names).items():
        results.add(metric, name, seconds / (few * BLOCKS) * _MS)


def _side_by_side(servers: Servers, few: int, names: tuple[str, ...]) -> dict[str, float]:
    """Seconds of processor time of each stack, measured in blocks of a few turns."""
    spent = dict.fromkeys(names, 0.0)
    with ExitStack() as stack:
        sink = stack.enter_context(_sink())
        running = {
            name: stack.enter_context(
                runtime(_database(servers, place), env=_variables(name, sink.url))
            )
            for place, name in enumerate(names)
        }
        for block in range(-1, BLOCKS):
            # Later stacks find a warmer machine, so the order changes too.
            for name in (*names[block % len(names) :], *names[: block % len(names)]):
                cost = cost_of_turns(running[name], f"{block}", few)
                # The first block is a warm-up.
                spent[name] += cost if block >= 0 else 0.0
    # The workers export the remaining spans when they end.
    assert sink.bytes > few * BLOCKS * 100
    return spent


def _database(servers: Servers, number: int) -> Servers:
    return replace(servers, redis_url=f"{servers.redis_url.rpartition('/')[0]}/{number}")


def _variables(name: str, url: str) -> Mapping[str, str]:
    if name == WITHOUT:
        return {}
    return {
        "AGENTAPI_TRACES": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.01" if name == SAMPLED else "1",
    }


class _Sink:
    """Counts the requests that it receives."""

    def __init__(self) -> None:
        self.bytes = 0
        self.url = ""


@contextmanager
def _sink() -> Iterator[_Sink]:
    """Run a collector that discards what it receives."""
    sink = _Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sink.bytes += len(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sink.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="sink")
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
