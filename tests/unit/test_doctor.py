"""What the doctor says of what it sees."""

from __future__ import annotations

from orchestrator.doctor import (
    Level,
    clock_finding,
    eviction_finding,
    persistence_finding,
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
    assert "celery -A workers worker" in none.advice
    levels = [finding.level for finding in worker_findings({"a": ["x"], "b": ["x"]})]
    assert levels == [Level.OK, Level.OK]
    *_, uneven = worker_findings({"a": ["x", "y"], "b": ["x"]})
    assert (uneven.level, "y" in uneven.what) == (Level.WARN, True)
    *_, empty = worker_findings({"a": []})
    assert (empty.level, "AGENTAPI_AGENTS" in empty.advice) == (Level.FAIL, True)
