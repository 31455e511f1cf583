"""The self-checks of a worker: at its start, and when `agentapi doctor` asks.

They run in their own thread, and long checks run on the event loop beside the turns. So neither the
consumer, which answers the doctor, nor a turn waits for them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import Any, Final

from agentapi import Settings
from agentapi.agents.definition import AgentDefinition
from agentapi.checks.findings import Finding, Level, fail, warn
from agentapi.checks.machine import machine_finding, memory
from agentapi.checks.providers import LONGEST, check_providers, provider_findings
from agentapi.checks.redis_server import ask_redis, clock_finding, redis_findings
from agentapi.checks.remedies import server_remedy
from agentapi.errors import AgentAPIError
from agentapi.logs import line
from agentapi.settings import unknown_variables
from agentapi.supervision import Service, Supervisor

log = logging.getLogger("agentapi.checks")

_MARGIN: Final = 5.0
"""Seconds added to the providers' own time limit, for a busy loop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """The newest results.

    Attributes:
        rounds: How many rounds of checks were completed.
        checking: Whether another round is requested or in progress.
        server: See `RedisFacts.server`.
        ahead: See `RedisFacts.ahead`.
        findings: All findings, including those without a fault.
    """

    rounds: int = 0
    checking: bool = False
    server: str | None = None
    ahead: float | None = None
    findings: Sequence[Finding] = ()


class SelfCheck:
    """Checks a worker in the background, and keeps the results."""

    def __init__(
        self,
        settings: Settings,
        agents: Mapping[str, AgentDefinition],
        loop: asyncio.AbstractEventLoop,
        *,
        supervisor: Supervisor,
    ) -> None:
        """Nothing runs before `start`.

        Args:
            settings: The worker's settings.
            agents: Its agents.
            loop: The event loop that turns run on, to which providers' clients belong.
            supervisor: Runs the thread.
        """
        self._settings = settings
        self._agents = agents
        self._loop = loop
        # Asks for the other processes that have the worker's name; it may take a second.
        self.twins: Callable[[], Sequence[str]] = tuple
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._checked = Checked()
        self._busy = self._started = False
        self._asked: Future[Any] | None = None
        self._logged: set[Finding] = set()
        self._service = supervisor.thread("agentapi-checks", self._run)

    def start(self) -> None:
        """Start the thread, and the first round of checks."""
        self._started = True
        self.want()
        self._service.start()

    def stop(self) -> None:
        """End the thread, and the checks that are running on the event loop."""
        if self._asked is not None:
            self._asked.cancel()
        if self._started:
            self._service.stop(wake=self._wanted.set, timeout=1.0)

    def want(self) -> None:
        """Ask for another round of checks. Returns immediately."""
        self._wanted.set()

    def results(self) -> Checked:
        """What was found so far. Returns immediately."""
        with self._lock:
            checking = self._busy or self._wanted.is_set()
            return replace(self._checked, checking=checking)

    def _run(self, service: Service) -> None:
        while True:
            self._wanted.wait()
            if service.stopping:
                return
            with self._lock:
                # Cleared before the round, so that a request from now on starts another one.
                self._wanted.clear()
                self._busy = True
            self._end(self._results())
            service.progress()

    def _results(self) -> Checked:
        try:
            return self._look()
        except Exception as error:
            # A check that fails must not end the worker.
            log.error(line("check.failed", error=type(error).__name__))
            fault = warn(
                "checks.failed",
                f"the worker's checks failed ({type(error).__name__})",
                "Look for check.failed in its log, and report this bug.",
            )
            return Checked(findings=[fault])

    def _look(self) -> Checked:
        found: list[Finding] = list(self._of_environment())
        server = ahead = None
        try:
            facts = ask_redis(self._settings)
            server, ahead = facts.server, facts.ahead
            found += [*redis_findings(facts), clock_finding(ahead, "the worker's clock")]
        except AgentAPIError as error:
            remedy = server_remedy(error, self._settings.redis_url, "AGENTAPI_REDIS_URL")
            found.append(fail("redis.unreachable", str(error), remedy))
        found.append(machine_finding(memory()))
        found += self._of_providers()
        return Checked(server=server, ahead=ahead, findings=found)

    def _of_environment(self) -> Iterator[Finding]:
        for unknown in unknown_variables(type(self._settings)):
            yield warn("settings.unknown", str(unknown), "Correct or remove the variable.")
        # Only at the start: the doctor asks all workers and detects it itself.
        if not self._checked.rounds and (twins := self.twins()):
            yield warn(
                "workers.same_name",
                f"{len(twins)} more with the same name: logs and Flower cannot tell them apart",
                "Give each worker on a machine its own --name.",
            )

    def _of_providers(self) -> Iterator[Finding]:
        agents = list(self._agents.values())
        work = check_providers(agents)
        try:
            self._asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            # The loop is closed: the worker has stopped.
            work.close()
            return
        if self._service.stopping:
            # `stop` came before there was anything to cancel.
            self._asked.cancel()
        try:
            faults = self._asked.result(LONGEST + _MARGIN)
        except CancelledError:
            return
        except TimeoutError:
            self._asked.cancel()
            yield warn(
                "providers.not_checked",
                "the event loop is too busy to check the providers",
                "Find the tool that blocks the event loop, or start more workers.",
            )
        else:
            yield from provider_findings(agents, faults)

    def _end(self, found: Checked) -> None:
        with self._lock:
            self._checked = Checked(
                rounds=self._checked.rounds + 1,
                server=found.server,
                ahead=found.ahead,
                findings=found.findings,
            )
            self._busy = False
        for finding in found.findings:
            # Once each: the doctor may ask every minute.
            if finding.level is not Level.OK and finding not in self._logged:
                self._logged.add(finding)
                log.warning(
                    line(
                        f"check.{finding.level}",
                        code=finding.code,
                        found=finding.message,
                        remedy=finding.remedy,
                    )
                )
