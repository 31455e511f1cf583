"""What a worker checks of itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentapi import Agent, Settings
from agentapi.checks.findings import Finding, Level
from agentapi.checks.machine import MemoryFacts, machine_finding, memory
from agentapi.checks.providers import ProviderFault, check_providers, provider_findings
from agentapi.checks.redis_server import RedisFacts
from agentapi.errors import (
    InvalidInput,
    ProviderMisconfigured,
    ProviderUnavailable,
    StoreUnavailable,
)
from agentapi.providers import Provider, providers
from agentapi.supervision import Supervisor
from tests.faults import until
from workers.upkeep import self_check
from workers.upkeep.self_check import SelfCheck


class Asked:
    """A provider that records what it was asked, and answers with an error or not at all."""

    default_model = "default"

    def __init__(self, answer: BaseException | None, *, silent: bool = False) -> None:
        self.models: Collection[str] = ()
        self._answer, self._silent = answer, silent

    async def check(self, models: Collection[str]) -> None:
        self.models = models
        if self._silent:
            await asyncio.Event().wait()
        if self._answer is not None:
            raise self._answer

    async def aclose(self) -> None:
        """Nothing to close."""


@contextmanager
def played(**answers: Any) -> Iterator[None]:
    """Providers by name."""

    def make(answer: Any) -> Callable[[], Provider]:
        return lambda: answer

    with ExitStack() as replaced:
        for name, answer in answers.items():
            replaced.enter_context(providers.replaced(name, make(answer)))
        yield


def agent(name: str, *choices: str) -> Agent:
    return Agent(name=name, provider=list(choices))


async def faults_of(*agents: Agent) -> dict[str, ProviderFault | None]:
    return await check_providers([each.definition for each in agents], longest=0.05)


async def test_each_kind_of_fault() -> None:
    answers = {
        "fine": Asked(None),
        "away": Asked(ProviderUnavailable("away")),
        "key": Asked(ProviderMisconfigured("no key")),
        "model": Asked(ProviderMisconfigured("no model", status=404)),
        "odd": Asked(InvalidInput("odd")),
        "mine": Asked(KeyError("what a user said")),
        "silent": Asked(None, silent=True),
    }
    with played(**answers):
        one = agent("one", "fine:a", "away", "key")
        two = agent("two", "fine:b", "fine", "model", "odd", "mine", "silent", "offline")
        faults = await faults_of(one, two)
    assert answers["fine"].models == {"a", "b", "default"}
    kinds = {name: fault.kind if fault else None for name, fault in faults.items()}
    assert kinds == {
        "fine": None,
        "away": "unreachable",
        "key": "key",
        "model": "model",
        "odd": "broken",
        "mine": "broken",
        "silent": "unreachable",
        # It has nothing to check.
        "offline": None,
    }
    texts = {name: fault.message for name, fault in faults.items() if fault}
    assert texts["mine"] == "provider 'mine' cannot be used: KeyError"
    assert texts["silent"] == "provider 'silent' did not answer within 0.05 s"


def levels(agents: list[Agent], faults: dict[str, ProviderFault | None]) -> dict[str, Finding]:
    found = provider_findings([each.definition for each in agents], faults)
    return {finding.code: finding for finding in found if finding.level is not Level.OK}


def test_a_fault_is_bad_if_an_agent_has_no_other_provider() -> None:
    away = ProviderFault(kind="unreachable", message="away")
    both = agent("both", "openai", "gemini")
    only = agent("only", "openai")
    found = levels([both], {"openai": away, "gemini": None})["providers.unreachable"]
    assert (found.level, found.message) == (Level.WARN, "away (agents: both)")
    found = levels([both, only], {"openai": away, "gemini": None})["providers.unreachable"]
    assert (found.level, found.message) == (Level.FAIL, "away (agents: only)")
    found = levels([both], {"openai": away, "gemini": away})["providers.unreachable"]
    assert found.level is Level.FAIL
    # Some servers take models that they do not list.
    model = ProviderFault(kind="model", message="no")
    assert levels([only], {"openai": model})["providers.model"].level is Level.WARN


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


MACHINE = {
    "proc/meminfo": "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    400 kB\n",
    "proc/self/statm": "9 2 1\n",
}


def test_memory_of_a_machine_and_of_a_container(tmp_path: Path) -> None:
    root = files(tmp_path, MACHINE)
    assert memory(root) == MemoryFacts(used=8192, left=400 * 1024, limit=1000 * 1024)
    group = "sys/fs/cgroup/memory"
    files(root, {f"{group}.max": "500\n", f"{group}.current": "450\n"})
    files(root, {f"{group}.stat": "anon 1\ninactive_file 50\n"})
    assert memory(root) == MemoryFacts(used=8192, left=100, limit=500)
    files(root, {f"{group}.max": "max\n"})
    assert memory(root).limit == 1000 * 1024
    assert memory(tmp_path / "nowhere") == MemoryFacts(used=None, left=None, limit=None)


def test_headroom() -> None:
    assert machine_finding(MemoryFacts(used=1, left=50, limit=100)).level is Level.OK
    assert machine_finding(MemoryFacts(used=None, left=None, limit=None)).level is Level.OK
    low = machine_finding(MemoryFacts(used=10**8, left=5 * 10**6, limit=10**8))
    assert (low.level, low.code) == (Level.WARN, "memory.worker_low")
    assert low.message.startswith("the process uses 100 MB; 5 MB of 100 MB are left")


FACTS = RedisFacts(
    address="redis://here/0",
    product="Redis 8",
    server="abc/0",
    ahead=0.0,
    persistence={"aof_enabled": 1},
    memory={"maxmemory_policy": "noeviction"},
    queues=8,
)


async def ended() -> None:
    """Wait for all other tasks of the loop."""
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread, as in a worker."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    asyncio.run_coroutine_threadsafe(ended(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def make_check(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., SelfCheck]]:
    """Make a check whose Redis answers with what is given."""
    made: list[SelfCheck] = []

    def make(*answers: RedisFacts | Exception, provider: str = "offline") -> SelfCheck:
        left = list(answers)

        def answer(_: Settings) -> RedisFacts:
            found = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(self_check, "ask_redis", answer)
        agents = {"a": agent("a", provider).definition}
        check = SelfCheck(Settings(), agents, loop, supervisor=Supervisor(fatal=None))
        made.append(check)
        return check

    yield make
    for check in made:
        check.stop()


def rounds(check: SelfCheck, count: int) -> list[str]:
    """The codes of the faults after so many rounds."""
    until(lambda: check.results().rounds >= count)
    found = check.results().findings
    return [finding.code for finding in found if finding.level is not Level.OK]


def test_a_worker_checks_itself_at_its_start_and_when_asked(
    make_check: Callable[..., SelfCheck], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("AGENTAPI_CONCURENCY", "1")
    check = make_check(FACTS, StoreUnavailable("away"), FACTS)
    check.twins = lambda: ["other"]
    assert check.results().rounds == 0
    check.start()
    assert rounds(check, 1) == ["settings.unknown", "workers.same_name"]
    assert (check.results().server, check.results().ahead) == ("abc/0", 0.0)
    check.want()
    assert rounds(check, 2) == ["settings.unknown", "redis.unreachable"]
    assert check.results().server is None
    check.want()
    assert rounds(check, 3) == ["settings.unknown"]
    assert not check.results().checking
    # Each fault is logged once.
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[1] for line in lines if line.startswith("check.")] == [
        "code=settings.unknown",
        "code=workers.same_name",
        "code=redis.unreachable",
    ]


def test_whoever_asks_during_a_round_gets_another_one(
    make_check: Callable[..., SelfCheck],
) -> None:
    entered, let_go = threading.Event(), threading.Event()

    def twins() -> list[str]:
        entered.set()
        let_go.wait(30)
        return []

    check = make_check(FACTS)
    check.twins = twins
    check.start()
    assert entered.wait(30)
    check.want()
    assert check.results().checking
    let_go.set()
    assert rounds(check, 2) == []
    until(lambda: not check.results().checking)


def test_a_check_that_fails_does_not_end_the_worker(
    make_check: Callable[..., SelfCheck],
) -> None:
    check = make_check(ZeroDivisionError("a fault of ours"), FACTS)
    check.start()
    assert rounds(check, 1) == ["checks.failed"]
    check.want()
    assert rounds(check, 2) == []


def test_a_loop_that_is_blocked(
    make_check: Callable[..., SelfCheck],
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(self_check, "LONGEST", 0.0)
    monkeypatch.setattr(self_check, "_MARGIN", 0.05)
    let_go = threading.Event()
    loop.call_soon_threadsafe(let_go.wait, 30)
    check = make_check(FACTS)
    check.start()
    assert rounds(check, 1) == ["providers.not_checked"]
    let_go.set()


def test_a_worker_that_stops_during_its_checks(
    make_check: Callable[..., SelfCheck], caplog: pytest.LogCaptureFixture
) -> None:
    asked = Asked(None, silent=True)
    with played(openai=asked):
        check = make_check(FACTS, provider="openai:m")
        check.start()
        until(lambda: asked.models)
        check.stop()
    assert check.results().rounds == 1
    assert "check.failed" not in caplog.text


def test_a_loop_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "ask_redis", lambda _: FACTS)
    loop = asyncio.new_event_loop()
    loop.close()
    agents = {"a": agent("a", "offline").definition}
    check = SelfCheck(Settings(), agents, loop, supervisor=Supervisor(fatal=None))
    check.start()
    assert rounds(check, 1) == []
    check.stop()
