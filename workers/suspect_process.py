"""The process that is forked for one suspect turn."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from typing import Any, Final

from agentapi import Settings
from agentapi.agents.definition import AgentDefinition
from agentapi.logs import configure_logging
from agentapi.metrics import install
from agentapi.metrics.pace import pace
from agentapi.metrics.relay import RELAYED, Relay
from agentapi.stores import RedisTurnStore
from agentapi.tracing import set_up, traces
from workers.dispatch import Dispatcher
from workers.isolation.messages import DONE
from workers.isolation.watchdog import CANCEL, HAND_BACK, SIGNALS
from workers.runtime import Runtime
from workers.turns.suspect import SuspectTurn

SERVICE: Final = "agentapi-worker"
"""Service name of a worker in traces."""

TRACES_EXIT: Final = 5.0
"""Time limit for exporting spans when a process ends, in seconds."""

LOOK: Final = 0.5
"""Seconds between checks whether the turn must be handed back."""


def run_suspect(
    settings: Settings,
    dispatcher: Dispatcher,
    agents: Mapping[str, AgentDefinition],
    turn: SuspectTurn,
) -> dict[str, Any]:
    """Run a turn in this process, which runs nothing else.

    Args:
        settings: The worker's settings.
        dispatcher: Sends wake-ups. It is not connected yet.
        agents: The worker's agents.
        turn: The turn to run.

    Returns:
        The state of the turn; see `Runtime.execute`.
    """
    # Celery sets up logging only after the watchdog is forked.
    configure_logging(settings.log_level, settings.log_format)
    relay = None
    if settings.metrics_port is not None:
        relay = Relay()
        install(relay)
    set_up(settings.traces, content=settings.trace_content, service=SERVICE)
    # Everything is made here, after the fork: threads and connections do not survive one.
    runtime = Runtime(
        settings,
        agents,
        RedisTurnStore(settings, keep_connections=True),
        dispatcher,
        process=turn.process,
    )
    # If the watchdog dies, this process's death would not be counted, so the turn is handed back.
    watchdog = os.getppid()
    hand_back = threading.Event()
    signal.signal(HAND_BACK, lambda *_: hand_back.set())
    signal.signal(CANCEL, lambda *_: runtime.cancel_all())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    result: dict[str, Any] = {}

    def work() -> None:
        runtime.start(turn.owner)
        result.update(runtime.execute(turn.conversation_id, turn.turn_id, turn.agent))

    # Python runs signal handlers in the main thread only, so that one stays free.
    thread = threading.Thread(target=work, name="agentapi-isolated")
    thread.start()
    while thread.is_alive():
        thread.join(LOOK)
        # Repeatedly: the turn may have been claimed since the last time.
        if hand_back.is_set() or os.getppid() != watchdog:
            runtime.shutdown.end_now()
    # Logged before any error, so that an operator sees that the turn was tried here.
    traces().flush(TRACES_EXIT)
    # The exit code tells the watchdog: an error here counts like a death of the process.
    if not result:
        raise RuntimeError("the turn gave no result")
    runtime.stop()
    # The worker adds these to its own metrics: this process ends before it could be scraped.
    result[DONE] = pace.total().to_json()
    if relay is not None:
        result[RELAYED] = relay.heard()
    return result
