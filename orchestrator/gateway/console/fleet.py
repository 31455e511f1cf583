"""The start page: the current state of the fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request, Response

from agentapi.errors import ConfigurationError
from agentapi.stores import TurnCount, TurnQuery, TurnSummary
from agentapi.turns import TurnStatus
from orchestrator.fleet import FleetProvider, FleetSnapshot, FleetWorker, WorkerState
from orchestrator.gateway.console.charts import Chart, chart_of, share_of
from orchestrator.gateway.console.entries import turn_address, turn_entry
from orchestrator.gateway.console.filters import OPEN, address
from orchestrator.gateway.console.fleet_watch import SPAN, SPANS, FleetLook
from orchestrator.gateway.console.pages import page
from orchestrator.gateway.console.routing import View, console_router, needs
from orchestrator.gateway.console.security import ROOT
from orchestrator.gateway.console.shown import duration
from orchestrator.gateway.console.view import PART_MISSING, ConsoleView
from orchestrator.gateway.health import max_sweep_age
from orchestrator.gateway.tenants.scopes import Scope

router = console_router()

FAILURES: Final = 10
"""Maximum failures on the page, newest first."""

_OPEN_COUNTED: Final = 200
"""Maximum open turns of one tenant that are counted; beyond that the page shows "more"."""

_BAD: Final = frozenset({WorkerState.STALLED, WorkerState.NO_REDIS, WorkerState.SILENT})
_TIRED: Final = frozenset({WorkerState.FULL, WorkerState.STOPPING, WorkerState.UNKNOWN})


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningEntry:
    """A turn that a worker runs."""

    address: str
    short_id: str
    agent: str
    doing: str
    seconds: float
    attempt: int
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerEntry:
    """A worker.

    Attributes:
        state: Its state; `level` rates it: ``ok``, ``warn`` or ``bad``.
        share: Percentage of occupied slots, 0 to 100; None for viewers of one tenant.
        running: The turns that it runs, as far as the viewer may see them.
        more: Number of other turns that it runs.
    """

    name: str
    state: str
    level: str
    silent: float
    used: int
    slots: int
    share: float | None
    uptime: float
    version: str
    ended: int
    failed: int
    faults: Sequence[str]
    running: Sequence[RunningEntry]
    more: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderEntry:
    """A provider. `level` is ``ok``, ``warn`` or ``bad``; shares are 0 to 100, or None."""

    name: str
    state: str
    level: str
    requests: int
    requests_limit: int | None
    requests_share: float | None
    tokens: int
    tokens_limit: int | None
    tokens_share: float | None


@router.get("")
@needs(Scope.READ)
async def fleet_page(request: Request, view: View) -> Response:
    """Workers, queues, rates, providers, and the newest failures."""
    look = await view.gateway.fleet.look()
    snapshot = look.snapshot
    everything = view.viewer.operates
    values: dict[str, Any] = {
        "snapshot": snapshot,
        "asked": look.asked,
        "troubles": [
            *_gaps(snapshot.gaps, everything),
            *_troubles(look, max_sweep_age(view.gateway.settings)),
        ],
        "workers": [_worker(view, worker) for worker in snapshot.workers],
        "providers": [_provider(each, everything) for each in snapshot.providers],
        "accepted": None,
        "failed": None,
        "queues": [],
        "parked": [],
        "own": None,
        "own_more": False,
        "failures": await _failures(view, snapshot),
        "all_failures": address(f"{ROOT}/turns", {"status": "failed"}),
    }
    if everything:
        values |= _numbers(snapshot, look.counts)
    else:
        values |= await _own_numbers(view)
    return page(request, "fleet.html", fragment="_fleet.html", **values)


async def _failures(view: ConsoleView, snapshot: FleetSnapshot) -> list[Any]:
    found: Sequence[TurnSummary] = snapshot.failures or ()
    if not view.viewer.operates:
        failed = TurnQuery(statuses=frozenset({TurnStatus.FAILED}))
        found = await _listed(view, failed, FAILURES)
    return [turn_entry(view, turn) for turn in found[:FAILURES]]


async def _listed(view: ConsoleView, query: TurnQuery, limit: int) -> Sequence[TurnSummary]:
    try:
        return (await view.turns(query, limit, fresh=False)).items
    except ConfigurationError:
        # Lists are turned off; the rest of the page does not need them.
        return ()


def _numbers(snapshot: FleetSnapshot, counts: Sequence[TurnCount]) -> dict[str, Any]:
    """Numbers of the whole fleet, for viewers of all tenants."""
    turns = snapshot.turns
    return {
        "accepted": _chart([each.accepted for each in counts], "turns accepted"),
        "failed": _chart([each.failed for each in counts], "turns accepted that have failed"),
        "queues": sorted(turns.ready_by_queue.items()) if turns else [],
        "parked": sorted(turns.parked.items()) if turns else [],
    }


def _chart(values: Sequence[float], what: str) -> Chart | None:
    minutes = SPANS * SPAN / 60
    rates = [value * 60 / SPAN for value in values]
    now, most = (f"{rate:.3g}" for rate in (rates[-1], max(rates))) if rates else ("0", "0")
    return chart_of(
        rates, f"{what} a minute, over {minutes:.0f} minutes: now {now}, at most {most}"
    )


async def _own_numbers(view: ConsoleView) -> dict[str, Any]:
    """Numbers of one tenant."""
    found = await _listed(view, TurnQuery(statuses=OPEN), _OPEN_COUNTED)
    counts = Counter(turn.status.value for turn in found)
    own = [(status.value, counts[status.value]) for status in TurnStatus if status in OPEN]
    return {"own": own, "own_more": len(found) >= _OPEN_COUNTED}


def _worker(view: ConsoleView, worker: FleetWorker) -> WorkerEntry:
    now, everything = worker.activity, view.viewer.operates
    state = worker.state
    turns = [turn for turn in (now.turns if now else ()) if view.sees(turn.tenant_id)]
    running = [
        RunningEntry(
            address=turn_address(turn.turn_id),
            short_id=turn.turn_id[:12],
            agent=turn.agent,
            doing=", ".join(turn.tools) or turn.doing,
            seconds=turn.seconds,
            attempt=turn.attempt,
            steps=turn.steps,
        )
        for turn in turns[:5]
    ]
    used, slots = (now.used, now.slots) if now else (0, 0)
    return WorkerEntry(
        name=worker.name,
        state=state.value,
        level="bad" if state in _BAD else "warn" if state in _TIRED else "ok",
        silent=worker.silent,
        used=used,
        slots=slots,
        share=(share_of(used, slots) or 0.0) if everything else None,
        uptime=now.uptime if now else 0.0,
        version=now.version if now else "",
        ended=now.minute.ended if now else 0,
        failed=now.minute.failed if now else 0,
        faults=now.faults if now else (),
        running=running,
        more=max(0, (used if everything else len(turns)) - len(running)),
    )


def _provider(provider: FleetProvider, everything: bool) -> ProviderEntry:
    state, level = "answers", "ok"
    if provider.open is not None:
        level = "bad"
        when = "now" if provider.open <= 0 else f"in {duration(provider.open)}"
        state = f"unavailable: next attempt {when}"
    elif provider.held > 0:
        state, level = f"asked to wait {duration(provider.held)}", "warn"
    limit = provider.limit
    return ProviderEntry(
        name=provider.name,
        state=state,
        level=level,
        requests=provider.requests,
        requests_limit=limit.requests,
        requests_share=share_of(provider.requests, limit.requests) if everything else None,
        tokens=provider.tokens,
        tokens_limit=limit.tokens,
        tokens_share=share_of(provider.tokens, limit.tokens) if everything else None,
    )


def _gaps(gaps: Sequence[str], everything: bool) -> Sequence[str]:
    """Describe what is missing on the page. Only viewers of the whole fleet see server
    addresses."""
    if everything:
        return [f"{gap}." for gap in gaps]
    return [PART_MISSING] if gaps else []


def _troubles(look: FleetLook, max_age: float) -> Iterator[str]:
    """Describe problems and remedies, worst first."""
    snapshot = look.snapshot
    for fault in (snapshot.redis_fault, snapshot.broker_fault):
        if fault:
            yield fault
    if look.asked and not snapshot.broker_fault and not snapshot.answering:
        yield "No worker answers: turns are accepted, but wait. Start one with `agentapi worker`."
    silent = [worker.name for worker in snapshot.workers if worker.silent]
    if silent:
        names = ", ".join(silent)
        yield f"{names} no longer answers: it has ended, or is too busy."
    for worker in snapshot.workers:
        if worker.state is WorkerState.NO_REDIS:
            yield f"{worker.name} cannot reach Redis."
        elif worker.state is WorkerState.STALLED:
            yield f"{worker.name} takes no turns: one of its parts does not respond. See its log."
    swept = snapshot.turns.since_sweep if snapshot.turns else None
    if swept is not None and swept > max_age:
        yield (
            f"No worker has looked for lost turns for {duration(swept)}: run `agentapi doctor` to "
            "find the cause."
        )
    for provider in snapshot.providers:
        if provider.open is not None:
            yield f"Provider {provider.name} is unavailable: turns wait until it is back."
