"""One run: a stack, a load, browsers that stay open, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
import redis
from playwright.sync_api import CDPSession, Page, Response
from rich.console import Console
from rich.progress import Progress

from orchestrator import Orchestrator
from orchestrator.stack import Stack
from tests.chaos.options import option
from tests.soak.gauges import MEGABYTE, Series
from tests.soak.trend import Bound, Trend
from tests.system.browser import Visit, Visits
from tests.system.live.load import LiveLoad
from tests.system.seen import conversation_page, turn_page

LONG: Final = 300.0
"""Seconds from which on a run shows whether something grows: pools and caches are full then."""

BOUNDS: Final[Mapping[str, Bound]] = {
    "memory": Bound(absolute=12, relative=0.1),
    "files": Bound(absolute=8, relative=0.1),
    "threads": Bound(absolute=4, relative=0.05),
    "clients": Bound(absolute=6, relative=0.1),
    "elements": Bound(absolute=400, relative=0.2),
    "heap": Bound(absolute=8, relative=0.3),
}
"""What may grow by how much between the warm-up and the end."""

UNITS: Final[Mapping[str, str]] = {
    "memory": "MB",
    "files": "descriptors",
    "threads": "threads",
    "clients": "connections",
    "elements": "nodes",
    "heap": "MB",
}

PAGES: Final = (
    "/console",
    "/console/turns",
    "/console/approvals",
    "/console/conversations",
    "/console/turns?status=failed",
)
NEWEST_TURN: Final = "the newest turn"
NEWEST_CONVERSATION: Final = "a conversation"


@dataclass(frozen=True, kw_only=True)
class LivePlan:
    """Browsers that stay open on all pages while turns run; fails when anything grows."""

    folder: Path
    minutes: float = option(10.0, "how long")
    browsers: int = option(10, "how many")
    rate: float = option(3.0, "turns a second")
    workers: int = option(2, "worker processes")
    revisit: float = option(20.0, "seconds after which a browser that follows a turn takes another")

    @property
    def seconds(self) -> float:
        """How long."""
        return self.minutes * 60

    @property
    def retention(self) -> float:
        """Seconds for which ended turns, and idle conversations, are kept."""
        return min(60.0, max(30.0, self.seconds / 10))


@dataclass
class LiveOutcome:
    """What was measured.

    Attributes:
        plan: What was to be done.
        trends: How each figure went.
        answers: How many answers the console gave.
        turns: How many turns were enqueued.
        problems: What went wrong.
    """

    plan: LivePlan
    trends: dict[tuple[str, str], Trend] = field(default_factory=dict)
    answers: int = 0
    turns: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class _Tab:
    """A browser's page, and what it looks at."""

    visit: Visit
    page: Page
    what: str
    measure: CDPSession
    since: float = 0.0
    answers: int = 0

    def count(self, response: Response) -> None:
        """Count an answer of the console."""
        self.answers += response.ok


def run(plan: LivePlan, visits: Visits, console: Console) -> LiveOutcome:
    """Carry a plan out."""
    stack = Stack(
        plan.folder,
        agents=("tests.system.agents",),
        workers=plan.workers,
        flower=False,
        gateway=True,
        turn_retention=plan.retention,
        events_retention=plan.retention,
        ends_retention=plan.retention,
        memory_ttl=plan.retention,
        approval_timeout=30,
        gateway_requests_per_minute=0,
    )
    with stack, ExitStack() as open_pages:
        return _Live(plan, stack, visits, open_pages, console).run()


class _Live:
    def __init__(
        self,
        plan: LivePlan,
        stack: Stack,
        visits: Visits,
        open_pages: ExitStack,
        console: Console,
    ) -> None:
        self._plan = plan
        self._stack = stack
        self._console = console
        self._series = Series()
        self._tabs_measured = 0.0
        self._orchestrator = open_pages.enter_context(Orchestrator(stack.settings))
        self._redis: Any = redis.Redis.from_url(stack.redis_url)
        open_pages.callback(self._redis.close)
        self._tabs = [
            self._open(open_pages.enter_context(visits.visit(self._url, check=False)), number)
            for number in range(plan.browsers)
        ]

    @property
    def _url(self) -> str:
        assert self._stack.gateway_url is not None
        return self._stack.gateway_url

    def _open(self, visit: Visit, number: int) -> _Tab:
        what = (*PAGES, NEWEST_TURN, NEWEST_CONVERSATION)[number % (len(PAGES) + 2)]
        page = visit.page()
        measure = visit.context.new_cdp_session(page)
        measure.send("Performance.enable")
        tab = _Tab(visit=visit, page=page, what=what, measure=measure)
        page.on("response", tab.count)
        return tab

    def run(self) -> LiveOutcome:
        """Watch until the time is up."""
        outcome = LiveOutcome(plan=self._plan)
        with LiveLoad(self._stack.settings, rate=self._plan.rate) as load:
            with Progress(console=self._console, transient=True) as progress:
                task = progress.add_task("browsers", total=self._plan.seconds)
                self._series = Series()
                while self._series.elapsed < self._plan.seconds:
                    self._look()
                    self._measure()
                    progress.update(task, completed=self._series.elapsed)
            outcome.turns = load.turns
            outcome.problems += [f"{count} x {what}" for what, count in load.problems.items()]
        outcome.answers = sum(tab.answers for tab in self._tabs)
        outcome.trends = self._series.trends(BOUNDS)
        outcome.problems += self._problems(outcome.trends)
        return outcome

    def _look(self) -> None:
        """Open what a tab is to show; live pages do the rest."""
        now = time.monotonic()
        for tab in self._tabs:
            follows = tab.what in (NEWEST_TURN, NEWEST_CONVERSATION)
            if tab.since == 0 or (follows and now - tab.since > self._plan.revisit):
                path = self._path_of(tab.what)
                if path is not None:
                    tab.page.goto(self._url + path)
                    tab.since = now

    def _path_of(self, what: str) -> str | None:
        if what not in (NEWEST_TURN, NEWEST_CONVERSATION):
            return what
        newest = self._orchestrator.turns(agent="slow").page(limit=1).items
        if not newest:
            return None
        if what == NEWEST_TURN:
            return turn_page(newest[0].turn_id)
        return conversation_page(newest[0].conversation_id)

    def _measure(self) -> None:
        series = self._series
        for subject, child in (("gateway", self._stack.gateway), *_workers(self._stack)):
            assert child is not None
            process = psutil.Process(child.pid)
            series.add("memory", subject, process.memory_info().rss / MEGABYTE)
            series.add("files", subject, process.num_fds())
            series.add("threads", subject, process.num_threads())
        series.add("memory", "Valkey's data", self._redis.info("memory")["used_memory"] / MEGABYTE)
        series.add("clients", "of Valkey", self._redis.info("clients")["connected_clients"])
        if time.monotonic() - self._tabs_measured > max(5.0, self._plan.seconds / 60):
            self._tabs_measured = time.monotonic()
            self._measure_tabs()
        # Playwright's events come only while one waits for it.
        self._tabs[0].page.wait_for_timeout(max(500.0, self._plan.seconds / 400 * 1000))

    def _measure_tabs(self) -> None:
        elements = heap = 0.0
        for tab in self._tabs:
            # What was taken off a page counts only if something still holds it.
            tab.measure.send("HeapProfiler.collectGarbage")
            found = tab.measure.send("Performance.getMetrics")["metrics"]
            metrics = {metric["name"]: metric["value"] for metric in found}
            elements += metrics["Nodes"]
            heap += metrics["JSHeapUsedSize"] / MEGABYTE
        self._series.add("elements", "of all pages", elements)
        self._series.add("heap", "of all pages' scripts", heap)

    def _problems(self, trends: Mapping[tuple[str, str], Trend]) -> Sequence[str]:
        found = [fault for tab in self._tabs for fault in tab.visit.faults]
        for tab in self._tabs:
            if tab.page.locator("#interrupted:visible").count():
                found.append(f"the updates of {tab.what} are interrupted")
            # A page alone has few answers: itself, its style and its scripts.
            if tab.answers < 8:
                found.append(f"{tab.what} is not live: {tab.answers} answers")
        if self._plan.seconds >= LONG:
            found += [
                f"{kind} of {subject} grows: by {one.growth:.1f}, {one.allowed:.1f} allowed"
                for (kind, subject), one in trends.items()
                if one.grows
            ]
        return found


def _workers(stack: Stack) -> Sequence[tuple[str, Any]]:
    return [(worker.name, worker) for worker in stack.workers]
