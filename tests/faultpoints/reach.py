"""Which points of a worker's way there are, and which of them the scenarios cannot pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentapi.admission.scripts import SCRIPTS
from agentapi.stores.redis.scripts import SCRIPTS as STORE_SCRIPTS
from tests.faultpoints.compiled import WORKER, points_in
from tests.faultpoints.effects import Kind

UNREACHED: Final[Mapping[str, str]] = {
    "await workers.work.flow.FlowWork.run: run.run": (
        "gather and chain: the loop inside is the one that agents' turns pass"
    ),
    "hand-off workers.celery_ext.control.revoke: state.app.runtime.threads.submit": (
        "a command of Flower's or Celery's"
    ),
    "hand-off workers.isolation.places.IsolatedTurns._in_thread: self.threads.submit": (
        "only when a turn's process dies"
    ),
    "hand-off workers.runtime.Runtime.start: self._loop.loop.call_soon_threadsafe": (
        "the worker starts before faults are planned"
    ),
    "hand-off workers.runtime.Runtime.execute: asyncio.run_coroutine_threadsafe": "eager mode",
    **{f"script {name}": "for who watches the fleet" for name in ("count", "used")},
    **{
        f"script {name}": "the gateway's"
        for name in (
            *("backlog", "continue_from", "drop", "forget", "fork", "measure"),
            *("open", "page", "relabel", "remove", "seek", "wipe"),
        )
    },
    **{
        f"script {name}": "for backups, and for who answers for the data"
        for name in ("erase", "restore")
    },
    "script unlist_turns": "turns do not expire in the scenarios; tests/property expires them",
    "script agree": "the worker starts before faults are planned",
    "script append": "a `RedisMemory` in the caller's process",
    "script cancel": "a producer's",
    "script decide": "a producer's",
    "script list": "a producer's",
    "script load": "a `RedisMemory` in the caller's process",
    "script orphan": "the watchdog's",
    "script placed": "a producer's",
    "script perish": "only when a turn's process dies",
    "script reset": "a producer's",
    "script retry": "a producer's",
}
"""Points that no worker passes in the scenarios, and why."""

SOMETIMES: Final[Mapping[str, str]] = {
    "await workers.turns.running.RunningTurn.call: asyncio.wait": "a turn was cancelled there",
    "script hasten": "the broker came back; see `triggered`",
    "script hold": "a hook ran while its worker looked for ends again",
    "script rouse": "a provider that was away is back",
}
"""Points that a worker passes only when something went wrong, and what."""


def points_of_a_worker() -> set[str]:
    """All points of a turn's way through a worker, as the sources have them."""
    scripts = {f"{Kind.SCRIPT} {name}" for name in (*STORE_SCRIPTS.names, *SCRIPTS.names)}
    return scripts | set(points_in(*WORKER))
