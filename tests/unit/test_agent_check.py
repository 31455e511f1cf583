"""When a command says that no worker serves an agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from agentapi import TurnStatus, load_settings
from agentapi.errors import BrokerUnavailable, UnknownAgent
from orchestrator.cli import agent_check
from orchestrator.cli.agent_check import AgentCheck

Serving = Mapping[str, Sequence[str]]


@dataclass
class Handle:
    deferrals: int = 0
    current: TurnStatus = TurnStatus.QUEUED
    cancelled: list[bool] = field(default_factory=list)

    def info(self) -> Any:
        return SimpleNamespace(deferrals=self.deferrals)

    def status(self) -> TurnStatus:
        return self.current

    def cancel(self) -> None:
        self.cancelled.append(True)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AgentCheck]:
    def make(handle: Handle, *answers: Serving | Exception, agent: str = "shop") -> AgentCheck:
        left = list(answers)

        def ask(_: object) -> Serving:
            found = left.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(agent_check, "agents_of_workers", ask)
        made = AgentCheck(handle, agent, load_settings())  # type: ignore[arg-type]
        assert made.look()
        assert made._thread is not None
        made._thread.join()
        return made

    return make


def test_an_agent_that_is_served(check: Callable[..., AgentCheck]) -> None:
    assert not check(Handle(deferrals=1), {"w": ("shop",)}).look()
    # The worker that serves it was too busy for the first question.
    assert not check(Handle(deferrals=1), {"v": ("other",)}, {"w": ("shop",)}).look()


def test_an_agent_that_nobody_serves(check: Callable[..., AgentCheck]) -> None:
    handle = Handle(deferrals=1)
    made = check(handle, *[{"w": ("shop", "aide")}] * 2, agent="shpo")
    with pytest.raises(UnknownAgent, match=r"'shpo': did you mean 'shop'\? .*serve aide, shop"):
        made.look()
    assert handle.cancelled == [True]
    with pytest.raises(UnknownAgent, match="'zzz': The workers serve shop"):
        check(Handle(deferrals=1), *[{"w": ("shop",)}] * 2, agent="zzz").look()


def test_a_turn_that_no_worker_has_passed_on(check: Callable[..., AgentCheck]) -> None:
    handle = Handle()
    made = check(handle, *[{"w": ("other",)}] * 2)
    assert made.look()
    handle.current = TurnStatus.COMPLETED
    assert not made.look()
    assert handle.cancelled == []


def test_nobody_answers(check: Callable[..., AgentCheck]) -> None:
    assert not check(Handle(deferrals=1), {}, {}).look()
    assert not check(Handle(deferrals=1), BrokerUnavailable("away")).look()
