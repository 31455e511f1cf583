"""What the doctor finds in the answers of Redis and of the workers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentapi import Settings
from agentapi.broker.wire import queue_names
from agentapi.checks.findings import Finding, Level, fail, ok, warn
from agentapi.checks.providers import REMEDIES
from agentapi.checks.redis_server import (
    clock_finding,
    eviction_finding,
    memory_finding,
    persistence_finding,
    protocol_findings,
)
from agentapi.checks.report import SHARED, WorkerReport, archive_mark, shared_settings
from agentapi.decoding.records import PROTOCOL
from agentapi.supervision import ServiceStatus
from orchestrator.findings import (
    POOL,
    archive_findings,
    by_name,
    fleet_findings,
    own_findings,
    sweep_finding,
    worker_findings,
)
from workers.celery_ext.pool import TurnPool


def report(process: str = "1", *, queues: int = 8, **changes: Any) -> WorkerReport:
    """A worker without a fault."""
    fine = WorkerReport(
        process=process,
        version="1.0",
        protocol=1,
        pool=POOL,
        agents=["support"],
        queues=queue_names(queues),
        settings=shared_settings(Settings(queues=queues)),
        redis="redis://one/0",
        server="abc/0",
        ahead=0.01,
        checks=1,
    )
    return replace(fine, **changes)


def faults(reports: dict[str, WorkerReport], queues: int = 8) -> dict[str, Finding]:
    """Findings that are not fine, by code."""
    found = [*fleet_findings(reports, queues, "abc/0", "redis://two/0"), *own_findings(reports)]
    return {finding.code: finding for finding in found if finding.level is not Level.OK}


def test_persistence() -> None:
    assert persistence_finding({"aof_enabled": 1}).level is Level.OK
    bad = persistence_finding({"aof_enabled": 0})
    assert bad.level is Level.WARN
    assert "appendonly yes" in bad.remedy


def test_eviction() -> None:
    assert eviction_finding({"maxmemory_policy": "noeviction"}).level is Level.OK
    assert eviction_finding({"maxmemory_policy": "allkeys-lru"}).level is Level.WARN
    bad = eviction_finding({"maxmemory_policy": "allkeys-lru", "maxmemory": 10**9})
    assert bad.level is Level.FAIL
    assert "noeviction" in bad.remedy


def test_memory_of_redis() -> None:
    def found(used: int, **limits: int) -> Finding:
        return memory_finding({"used_memory": used, **limits})

    assert found(10**9).level is Level.OK
    assert found(10**9, total_system_memory=10**10).level is Level.OK
    assert found(9 * 10**9, total_system_memory=10**10).level is Level.WARN
    nearly = found(85, maxmemory=100, total_system_memory=10**10)
    assert (nearly.level, "85% of maxmemory" in nearly.message) == (Level.WARN, True)
    full = found(99, maxmemory=100)
    assert (full.level, full.code) == (Level.FAIL, "memory.redis_full")


def test_clock() -> None:
    assert clock_finding(0.01).level is Level.OK
    behind = clock_finding(-30, "the clock of a")
    assert behind.level is Level.WARN
    assert behind.message.startswith("the clock of a is -30.0 s off Redis's clock")


def test_sweep() -> None:
    assert sweep_finding(1.0, 1.0).level is Level.OK
    assert sweep_finding(5.5, 1.0).level is Level.FAIL
    assert sweep_finding(20.0, 10.0).level is Level.OK
    assert sweep_finding(None, 1.0).level is Level.FAIL


def test_no_worker() -> None:
    [none] = worker_findings([])
    assert (none.level, none.code) == (Level.FAIL, "workers.none")
    assert "agentapi worker" in none.remedy


def test_names_of_workers() -> None:
    assert [f.code for f in worker_findings([("a", report()), ("b", report("2"))])] == [
        "workers.answer"
    ]
    _, twice = worker_findings([("a", report()), ("a", report("2"))])
    assert (twice.level, twice.code) == (Level.WARN, "workers.same_name")
    assert "2 workers are named a" in twice.message
    # One process whose answer arrives twice is one worker.
    assert len(list(worker_findings([("a", report()), ("a", report())]))) == 1


def test_no_report_is_lost_under_a_name_that_is_taken() -> None:
    first, second, third = report("1"), report("2"), report("3")
    answers = [("a", first), ("b", None), ("a", second), ("a", first), ("a", third)]
    assert by_name(answers) == {"a": first, "a #2": second, "a #3": third}


def test_a_worker_of_an_older_release() -> None:
    answered = WorkerReport.from_json({"error": "KeyError('examine')"})
    _, old = worker_findings([("a", answered)])
    assert (old.level, old.code) == (Level.WARN, "workers.old")
    assert list(fleet_findings({}, 8)) == []


def test_a_fleet_without_fault() -> None:
    assert faults({"a": report(), "b": report("2")}) == {}
    assert f"{TurnPool.__module__}:{TurnPool.__name__}" == POOL


def test_agents() -> None:
    none = faults({"a": report(agents=[])})["agents.none"]
    assert (none.level, "AGENTAPI_AGENTS" in none.remedy) == (Level.FAIL, True)
    uneven = faults({"a": report(agents=["x", "y"]), "b": report(agents=["x"])})["agents.differ"]
    assert uneven.level is Level.WARN
    assert uneven.message == "agent 'y' is unknown to b"


def test_releases() -> None:
    found = faults({"a": report(version="1.0"), "b": report(version="1.1")})
    assert found["workers.releases"].level is Level.WARN
    assert "1.0: a; 1.1: b" in found["workers.releases"].message


def test_a_worker_that_does_not_say_its_release() -> None:
    found = faults({"a": report(version=""), "b": report("2", version="")})
    assert found["workers.unknown_release"].level is Level.WARN
    assert "a, b do not report" in found["workers.unknown_release"].message
    assert "workers.releases" not in found


def test_this_process_has_a_release_that_no_worker_has() -> None:
    reports = {"a": report(version="1.0"), "b": report(version="1.1")}
    for here, differs in (("1.0", False), ("1.1", False), ("1.2", True), ("", False)):
        found = {finding.code: finding for finding in fleet_findings(reports, 8, release=here)}
        assert ("releases.differ" in found) is differs
    assert found.keys() >= {"workers.releases"}


def test_a_worker_with_a_newer_protocol() -> None:
    found = faults({"a": report(protocol=PROTOCOL + 1), "b": report("2", protocol=PROTOCOL)})
    assert found["workers.protocol"].level is Level.WARN
    assert found["workers.protocol"].message.startswith(f"a knows version {PROTOCOL + 1}")


@pytest.mark.parametrize(
    ("stored", "unknown"),
    [(None, False), ("1", False), (str(PROTOCOL + 1), True), ("x", True), ("", True)],
)
def test_a_fleet_that_writes_what_this_release_cannot_read(
    stored: str | None, unknown: bool
) -> None:
    found = [finding.code for finding in protocol_findings(stored)]
    assert found == (["protocol.unknown"] if unknown else [])


def test_a_pool_that_cannot_carry_out_turns() -> None:
    found = faults({"a": report(pool="celery.concurrency.thread:TaskPool")})["workers.pool"]
    assert (found.level, "without -P" in found.remedy) == (Level.FAIL, True)


def test_another_number_of_queues_here() -> None:
    for here in (16, 4):
        found = faults({"a": report(), "b": report()}, queues=here)
        assert set(found) == {"queues.disagree"}
        assert found["queues.disagree"].level is Level.FAIL
        assert f"is {here} here, but 8 at a, b" in found["queues.disagree"].message
        assert "Set AGENTAPI_QUEUES=8. To change" in found["queues.disagree"].remedy


def test_queues_that_nobody_consumes() -> None:
    found = faults({"a": report(queues=2), "b": replace(report(queues=2), queues=["foo"])}, 2)
    assert found == {}
    halves = {"a": report(), "b": report()}
    halves = {
        "a": replace(report(), queues=queue_names(4)),
        "b": replace(report(), queues=queue_names(8)[4:7]),
    }
    found = faults(halves)
    assert found["queues.not_consumed"].level is Level.FAIL
    assert "agentapi.7" in found["queues.not_consumed"].message
    assert "-Q" in found["queues.not_consumed"].remedy


def test_another_redis() -> None:
    found = faults({"a": report(server="xyz/0"), "b": report(server=None)})["redis.differs"]
    assert found.level is Level.FAIL
    assert "a uses a different Redis (redis://one/0) from this process (redis://two/0)" in (
        found.message
    )


def marks(*urls: str | None) -> list[str]:
    return [archive_mark(Settings(archive_url=url)) for url in urls]


def test_archives_are_told_apart_without_their_urls() -> None:
    one, *same = marks(
        "postgresql://agents:hunter2@db/archive",
        "postgresql+psycopg://other:p@ss@db:5432/archive?sslmode=require",
        "postgres://db/archive",
    )
    assert set(same) == {one}
    others = marks("postgresql://db/other", "postgresql://db2/archive", "sqlite:////a.db", None)
    assert len({one, *others}) == 5
    assert others[-1] == ""


def test_an_archive_that_some_processes_lack() -> None:
    one, other = marks("postgresql://agents:hunter2@db/archive", "sqlite:////a.db")

    def found(here: str, **workers: str | None) -> list[tuple[Level, str]]:
        reports = {name: report(name, archive=mark) for name, mark in workers.items()}
        findings = list(archive_findings(reports, here))
        assert {finding.code for finding in findings} <= {"archive.differs"}
        assert "hunter2" not in str(findings)
        return [(finding.level, finding.message) for finding in findings]

    # An older release does not say.
    assert found("", a="", b=None) == found(one, a=one, b=one, c=None) == []
    [(level, message)] = found(one, a=one, b="", c=None)
    assert level is Level.FAIL
    assert "is set at a, this process, but not at b," in message
    [(level, message)] = found("", a=one)
    assert (level, "is set at a, but not at this process," in message) == (Level.FAIL, True)
    [(level, message)] = found(one, a=one, b=other)
    assert level is Level.WARN
    assert "(a, this process; b)" in message


def test_settings_that_must_agree() -> None:
    other = shared_settings(Settings(lease_ttl=5))
    found = faults({"a": report(), "b": report(settings=other)})
    assert set(found) == {"settings.differ"}
    assert found["settings.differ"].level is Level.WARN
    assert "AGENTAPI_LEASE_TTL differs between workers (10.0: a; 5.0: b)" in (
        found["settings.differ"].message
    )
    # A release that lacks the setting does not disagree.
    fewer = {name: value for name, value in other.items() if name != "lease_ttl"}
    assert faults({"a": report(), "b": report(settings=fewer)}) == {}
    assert set(SHARED) <= set(Settings.model_fields)


def test_services() -> None:
    service = ServiceStatus(
        name="agentapi-sweep",
        running=False,
        failures=3,
        in_a_row=3,
        last_error="RuntimeError",
        idle=0.1,
    )
    found = faults({"a": report(), "b": report(services=[service], accepting=False)})
    assert found["services.failing"].level is Level.FAIL
    assert found["services.failing"].message == (
        "agentapi-sweep of b failed 3 times in a row (RuntimeError)"
    )
    assert found["services.not_accepting"].level is Level.WARN


def test_clocks_of_workers() -> None:
    found = faults({"a": report(ahead=3600.0), "b": report(ahead=None)})
    assert "the clock of a is +3600.0 s" in found["clock.off"].message


def test_what_workers_found_themselves() -> None:
    key = fail("providers.key", "OPENAI_API_KEY is not set", "Set it.")
    low = warn("memory.worker_low", "1 MB are left", "More.")
    told = [ok("redis.reachable", "here"), ok("memory.worker", "fine"), key]
    names = [f"w{number}" for number in range(7)]
    reports = {name: report(name, findings=told) for name in names}
    reports["w0"] = report("w0", findings=[*told, low])
    found = list(own_findings(reports))
    assert [(finding.level, finding.code) for finding in found] == [
        (Level.FAIL, "providers.key"),
        (Level.WARN, "memory.worker_low"),
    ]
    assert found[0].message == "w0, w1, w2, w3, w4 and 2 more: OPENAI_API_KEY is not set"
    assert found[1].message == "w0: 1 MB are left"


def test_a_worker_that_has_not_checked_itself() -> None:
    assert "a did not complete" in faults({"a": report(checks=0)})["workers.not_checked"].message


def test_a_report_crosses_the_broker() -> None:
    service = ServiceStatus(
        name="s", running=True, failures=0, in_a_row=0, last_error=None, idle=0.5
    )
    sent = report(services=[service], findings=[ok("a.b", "c")])
    data = sent.to_json()
    assert WorkerReport.from_json(data) == sent
    # A newer release sends more; an older one less.
    service_data = {**data["services"][0], "new": 1}
    newer = {**data, "services": [service_data], "new": 1}
    assert WorkerReport.from_json(newer) == sent
    older = WorkerReport.from_json({"settings": {}})
    assert older == WorkerReport(settings={}, services=[], findings=[])


def test_the_guide_has_every_code() -> None:
    """Codes are for scripts: each one is documented, and none that does not exist."""
    root = Path(__file__).parents[2]
    sources = [
        *(root / "agentapi/checks").glob("*.py"),
        *(root / name for name in ("orchestrator/doctor.py", "orchestrator/findings.py")),
        *(root / name for name in ("orchestrator/cli/doctor.py", "workers/upkeep/self_check.py")),
    ]
    found = {f"providers.{kind}" for kind in REMEDIES}
    for source in sources:
        found |= set(re.findall(r'\b(?:fail|warn|found)\(\s*"(\w+\.\w+)"', source.read_text()))
    guide = (root / "docs/guides/doctor.md").read_text()
    rows = [line.split("|")[1] for line in guide.splitlines() if line.startswith("| `")]
    documented = {code for row in rows for code in re.findall(r"`(\w+\.\w+)`", row)}
    assert documented == found
    assert len(found) > 25
