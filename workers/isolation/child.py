"""The process that is forked for one suspect turn."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from agentapi.logs import configure_logging
from agentapi.stores import RedisTurnStore
from workers.isolation.messages import SuspectTurn
from workers.isolation.watchdog import CANCEL, HAND_BACK, SIGNALS
from workers.runtime import Runtime

if TYPE_CHECKING:
    from workers.app import WorkerApp

LOOK: Final = 0.5
"""Seconds between checks whether the turn must be handed back."""


def run_isolated(app: WorkerApp, turn: SuspectTurn) -> dict[str, Any]:
    """Run a turn in this process, which runs nothing else.

    Args:
        app: The worker's app, with nothing connected or started.
        turn: The turn to run.

    Returns:
        How the turn stands then; see `Runtime.execute`.
    """
    settings = app.settings
    # Celery sets up logging only after the watchdog is forked.
    configure_logging(settings.log_level, settings.log_format)
    runtime = Runtime(
        settings,
        app.runtime.agents,
        RedisTurnStore(settings, keep_connections=True),
        app.dispatcher,
        process=turn.process,
    )
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

    thread = threading.Thread(target=work, name="agentapi-isolated")
    thread.start()
    while thread.is_alive():
        thread.join(LOOK)
        # Repeatedly: the turn may have been claimed since the last time.
        if hand_back.is_set() or os.getppid() != watchdog:
            runtime.end_now()
    if not result:
        raise RuntimeError("the turn gave no result")
    runtime.stop()
    return result
