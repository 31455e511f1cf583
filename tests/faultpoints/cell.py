"""A worker, a producer and a gateway on a database of their own, and one run after the other."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator.stack.processes import free_port
from tests.faultpoints.agents import LEDGER
from tests.faultpoints.archive import ArchiveFile
from tests.faultpoints.effects import REMOTE, Effect, Fault, Kind
from tests.faultpoints.processes import Forked, ProcessEnded, Zygote
from tests.faultpoints.promises import Expected, Witness
from tests.faultpoints.scenarios import PATIENCE

SETTINGS: Final[Mapping[str, str]] = {
    "AGENTAPI_LEASE_TTL": "1",
    "AGENTAPI_HEARTBEAT": "0.1",
    "AGENTAPI_SWEEP_INTERVAL": "0.15",
    "AGENTAPI_DISPATCH_GRACE": "0.5",
    "AGENTAPI_SHUTDOWN_GRACE": "0.2",
    "AGENTAPI_TURN_TIMEOUT": "20",
    "AGENTAPI_PARK_AFTER": "0.05",
    "AGENTAPI_MAX_CHILDREN": "1",
    "AGENTAPI_MAX_ATTEMPTS": "10",
    "AGENTAPI_WATCHDOG": "false",
    "AGENTAPI_QUEUES": "1",
    "AGENTAPI_CONCURRENCY": "8",
    "AGENTAPI_LOG_LEVEL": "INFO",
    "AGENTAPI_GATEWAY_HEARTBEAT": "0.5",
    "AGENTAPI_GATEWAY_REQUESTS_PER_MINUTE": "1000000",
    "AGENTAPI_PROVIDER_LIMITS": '{"ledger": {"requests": 1000000, "tokens": 1000000000}}',
    "PYTHONUNBUFFERED": "1",
}

ROLES: Final = ("worker", "producer", "gateway")

QUIET_WITHIN: Final = 30.0
"""Seconds after the caller's last answer in which all that is left must be done."""

FAULT_WITHIN: Final = 4.0
"""Seconds after the scenario's end in which a fault may still happen. Services tick each second."""

IDLE_WITHIN: Final = 20.0
"""Seconds after that in which a process must have come to rest."""

SERVICES: Final = ("agentapi-",)
POOLS: Final = (
    "agentapi-store",
    "agentapi-begin",
    "agentapi-tool",
    "agentapi-gateway_",
    "agentapi-producer",
)
"""Threads of pools come and go."""

DOOMED: Final = {"stop": 2}
"""Turns that fail in a scenario without faults."""

NO_TURN: Final = (
    *("agentapi-sweep", "agentapi-heartbeat", "agentapi-events", "agentapi-follower"),
    *("agentapi-hooks", "agentapi-archive"),
)
"""Threads that serve all turns: what fails there must fail no turn."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What is to happen in a run.

    Attributes:
        scenario: What the producer does.
        role: Whose points they are.
        faults: What happens there; none for a dry run.
    """

    scenario: str
    role: str
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        faults = ", ".join(map(str, self.faults)) or "no fault"
        return f"{self.scenario}: {self.role}: {faults}"


@dataclass(kw_only=True)
class Result:
    """What happened in a run.

    Attributes:
        fired: The faults that happened, with the threads in which they did.
        broken: Promises that were broken.
        passed: How often each point was passed, by role.
    """

    planned: Planned
    fired: list[dict[str, Any]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    passed: Mapping[str, Counter[str]] = field(default_factory=dict)
    seconds: float = 0.0


class Cell:
    """Runs scenarios, each with its faults, and checks the promises after each."""

    def __init__(self, zygote: Zygote, url: str, folder: Path) -> None:
        """Describe one; processes are started when they are needed.

        Args:
            zygote: Forks the processes.
            url: A database that nobody else uses.
            folder: For logs and the ledger.
        """
        self._zygote = zygote
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        ledger = folder / "ledger.jsonl"
        ledger.touch()
        (folder / "fired.jsonl").touch()
        self._archive = ArchiveFile(folder / "archive.db")
        self._archives = False
        self._witness = Witness(url, ledger, self._archive)
        port = str(free_port())
        self._gateway_url = f"http://127.0.0.1:{port}"
        self._env = {
            **SETTINGS,
            "AGENTAPI_REDIS_URL": url,
            "AGENTAPI_BROKER_URL": url,
            "AGENTAPI_GATEWAY_PORT": port,
            LEDGER: str(ledger),
        }
        self._processes: dict[str, Forked] = {}
        self._stopped: Forked
        self._passed: dict[str, Counter[str]] = {}
        self._deaths: list[tuple[str, int | None]] = []
        self._number = 0

    def close(self) -> None:
        self._end_all()
        self._witness.close()

    def run(self, planned: Planned) -> Result:
        """Run it and look whether all promises were kept."""
        began = time.monotonic()
        self._number += 1
        result = Result(planned=planned)
        self._deaths.clear()
        self._passed = result.passed = {role: Counter() for role in ROLES}
        fired_before = len(self._fired())
        try:
            self._start_missing(planned)
            self._stopped = self._processes["worker"]
            for role, process in self._processes.items():
                process.arm(planned.faults if role == planned.role else ())
            story = self._play(planned)
            if planned.scenario == "stop":
                self._wait_for_stop(result)
            with self._restarting():
                self._wait_for_fault(planned, fired_before)
                state = self._witness.wait_until_quiet(0.5 if story["gave_up"] else QUIET_WITHIN)
            result.fired = self._fired()[fired_before:]
            result.broken += self._witness.broken(state, self._expected(result, story), story)
            result.broken += self._wrong_errors(planned, story)
            self._look_at_processes(result)
        except (TimeoutError, ProcessEnded) as error:
            result.fired = self._fired()[fired_before:]
            result.broken.append(f"{type(error).__name__}: {error}")
        if result.broken:
            # What is wrong now shall not be found again in the next run.
            self._end_all()
        self._witness.clean_up()
        result.seconds = time.monotonic() - began
        return result

    def _start_missing(self, planned: Planned) -> None:
        if self._archives != (planned.scenario == "archive"):
            self._end_all()
            self._archives = not self._archives
        started = []
        for role in ROLES if planned.scenario == "gateway" else ROLES[:2]:
            if role not in self._processes or self._processes[role].ended:
                self._processes[role] = self._fork(role)
                started.append(self._processes[role])
        for process in started:
            process.wait_until_ready()

    def _play(self, planned: Planned) -> dict[str, Any]:
        """Have the producer play the scenario; what dies is started again, as supervisors do."""
        run = f"r{self._number}"
        while True:
            producer = self._processes["producer"]
            try:
                with self._restarting():
                    story: dict[str, Any] = producer.ask(
                        "play",
                        within=3 * PATIENCE,
                        scenario=planned.scenario,
                        run=run,
                        url=self._gateway_url,
                        worker=self._processes["worker"].pid,
                    )
                return story
            except ProcessEnded:
                self._bury(producer)
                self._start_missing(planned)

    @contextmanager
    def _restarting(self) -> Iterator[None]:
        """Start again what ends meanwhile, as supervisors do."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.02):
                for role, process in list(self._processes.items()):
                    if role != "producer" and process.ended:
                        self._bury(process)
                        self._processes[role] = self._fork(role)
                        with suppress(ProcessEnded):
                            self._processes[role].wait_until_ready()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _bury(self, process: Forked) -> None:
        self._deaths.append((process.role, process.exit_code))
        if process.counts.exists():
            self._passed[process.role].update(json.loads(process.counts.read_text()))

    def _fork(self, role: str) -> Forked:
        env = {**self._env, **self._archive.env} if self._archives else self._env
        return Forked(self._zygote, role, self._folder, env)

    def _wait_for_stop(self, result: Result) -> None:
        """The worker that was told to stop does so."""
        deadline = time.monotonic() + QUIET_WITHIN
        while not self._stopped.ended:
            if time.monotonic() > deadline:
                result.broken.append("the worker did not stop")
                return
            time.sleep(0.02)

    def _wait_for_fault(self, planned: Planned, before: int) -> None:
        """Services go on when the scenario is over: a fault may be still to come in them."""
        deadline = time.monotonic() + FAULT_WITHIN
        while len(self._fired()) == before and planned.faults and time.monotonic() < deadline:
            time.sleep(0.05)

    def _expected(self, result: Result, story: Mapping[str, Any]) -> Expected:
        scenario = result.planned.scenario
        failing = sum(
            _may_fail(fault, hit["thread"])
            for hit in result.fired
            for fault in result.planned.faults
            if str(fault) == hit["fault"]
        )
        return Expected(
            accepted=[(name, turn) for name, turn in story["accepted"]],
            cancelled=scenario == "stop",
            may_fail=failing * (result.planned.role == "worker") + DOOMED.get(scenario, 0),
        )

    def _wrong_errors(self, planned: Planned, story: Mapping[str, Any]) -> list[str]:
        """A network that fails is told to callers by errors of this project."""
        network = (Effect.REDIS_ERROR, Effect.TIMEOUT, Effect.LOST_ANSWER)
        if planned.role != "producer":
            return []
        for fault in planned.faults:
            if fault.effect not in network or fault.kind not in REMOTE:
                return []
        return [f"the caller got a bare {name}" for name, ours in story["errors"] if not ours]

    def _look_at_processes(self, result: Result) -> None:
        """Every process lives, or died as it was told; nothing in it is dead or left over."""
        for role, process in self._processes.items():
            try:
                self._passed[role].update(process.ask("disarm"))
                result.broken += self._unhealthy(role, process)
            except ProcessEnded:
                self._bury(process)
        # An error that nobody expects in Celery's own thread ends the worker, which is seen.
        at_its_heart = any(hit["thread"] == "MainThread" for hit in result.fired)
        for role, code in self._deaths:
            told = role == result.planned.role and (code == -signal.SIGKILL or at_its_heart)
            if not told and not (result.planned.scenario == "stop" and code == 0):
                result.broken.append(f"the {role} ended with code {code}")

    def _unhealthy(self, role: str, process: Forked) -> list[str]:
        deadline = time.monotonic() + IDLE_WITHIN
        while (wrong := _wrong(role, process)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return wrong

    def _fired(self) -> list[dict[str, Any]]:
        lines = (self._folder / "fired.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def _end_all(self) -> None:
        for process in self._processes.values():
            process.kill()
        self._processes.clear()


def _may_fail(fault: Fault, thread: str) -> bool:
    """Whether the turn that a fault meets may fail of it."""
    if fault.effect.kills or thread.startswith(NO_TURN):
        return False
    network = (Effect.REDIS_ERROR, Effect.TIMEOUT, Effect.LOST_ANSWER, Effect.HANG)
    return not (fault.kind in REMOTE and fault.effect in network) and fault.kind is not Kind.STEP


def _wrong(role: str, process: Forked) -> list[str]:
    health = process.ask("health")
    services = {thread for thread in process.baseline["threads"] if thread.startswith(SERVICES)}
    gone = {t for t in services - set(health["threads"]) if not t.startswith(POOLS)}
    wrong = [f"thread {thread} of the {role} is dead" for thread in sorted(gone)]
    for service in health["services"]:
        if not service["running"]:
            wrong.append(f"service {service['name']} of the {role} is not running")
    for what in ("running turns", "jobs in flight", "subscriptions"):
        if health.get(what):
            wrong.append(f"the {role} still has {health[what]} {what}")
    tasks = "tasks of the loop"
    if health.get(tasks, 0) > process.baseline.get(tasks, 0) + 1:
        wrong.append(f"the {role} still has {health[tasks]} {tasks}")
    return wrong
