"""What the doctor says of what it sees."""

from __future__ import annotations

from dataclasses import replace

from agentapi.supervision import ServiceStatus
from orchestrator.findings import (
    Level,
    WorkerReport,
    clock_finding,
    eviction_finding,
    persistence_finding,
    queue_findings,
    service_findings,
    sweep_finding,
    worker_clock_findings,
    worker_findings,
)


def test_persistence() -> None:
    assert persistence_finding({"aof_enabled": 1}).level is Level.OK
    bad = persistence_finding({"aof_enabled": 0})
    assert bad.level is Level.WARN
    assert "appendonly yes" in bad.advice


def test_eviction() -> None:
    assert eviction_finding("noeviction", 0).level is Level.OK
    assert eviction_finding("allkeys-lru", 0).level is Level.WARN
    bad = eviction_finding("allkeys-lru", 10**9)
    assert bad.level is Level.FAIL
    assert "noeviction" in bad.advice


def test_clock() -> None:
    assert clock_finding(0.01).level is Level.OK
    assert clock_finding(-30).level is Level.WARN


def test_workers_and_their_agents() -> None:
    [none] = worker_findings({})
    assert none.level is Level.FAIL
    assert "agentapi worker" in none.advice
    levels = [finding.level for finding in worker_findings({"a": ["x"], "b": ["x"]})]
    assert levels == [Level.OK, Level.OK]
    *_, uneven = worker_findings({"a": ["x", "y"], "b": ["x"]})
    assert (uneven.level, "y" in uneven.what) == (Level.WARN, True)
    *_, empty = worker_findings({"a": []})
    assert (empty.level, "AGENTAPI_AGENTS" in empty.advice) == (Level.FAIL, True)


def report(in_a_row: int = 0, clock: float = 100.0, queues: tuple[str, ...] = ()) -> WorkerReport:
    status = ServiceStatus(
        name="agentapi-sweep",
        running=in_a_row == 0,
        failures=in_a_row,
        in_a_row=in_a_row,
        last_error="RuntimeError" if in_a_row else None,
        idle=0.1,
    )
    return WorkerReport(services=[status], queues=queues, clock=clock)


def test_sweep() -> None:
    assert sweep_finding(1.0, 1.0).level is Level.OK
    assert sweep_finding(5.5, 1.0).level is Level.FAIL
    assert sweep_finding(20.0, 10.0).level is Level.OK
    assert sweep_finding(None, 1.0).level is Level.FAIL


def test_services_of_workers() -> None:
    assert list(service_findings({})) == []
    [fine] = service_findings({"a": report(), "b": report()})
    assert fine.level is Level.OK
    [failing] = service_findings({"a": report(), "b": report(in_a_row=3)})
    assert failing.level is Level.FAIL
    assert failing.what == "agentapi-sweep of b failed 3 times in a row (RuntimeError)"
    [closed] = service_findings({"a": replace(report(), accepting=False)})
    assert (closed.level, "takes no turns" in closed.what) == (Level.WARN, True)


def test_queues_that_nobody_serves() -> None:
    queues = ["agentapi.0", "agentapi.1"]
    assert list(queue_findings({}, queues)) == []
    shared = {"a": report(queues=("agentapi.0",)), "b": report(queues=("agentapi.1",))}
    assert list(queue_findings(shared, queues)) == []
    [missing] = queue_findings({"a": report(queues=("foo", "agentapi.0"))}, queues)
    assert (missing.level, "agentapi.1" in missing.what) == (Level.FAIL, True)


def test_clocks_of_workers() -> None:
    asked, answered = 100.0, 101.5
    on_time = {"a": report(clock=100.0), "b": report(clock=101.5)}
    assert list(worker_clock_findings(on_time, asked, answered, 0.0)) == []
    off = {"a": report(clock=90.0), "b": report(clock=3700.0)}
    behind, ahead = worker_clock_findings(off, asked, answered, 0.0)
    assert ("-10 s" in behind.what, "+3598 s" in ahead.what) == (True, True)
    # All machines but Redis's.
    both = list(worker_clock_findings(on_time, asked, answered, 60.0))
    assert ["+60 s" in finding.what for finding in both] == [True, True]
