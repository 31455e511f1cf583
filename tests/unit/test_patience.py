"""Riding out an absence of Redis."""

from __future__ import annotations

import pytest

from agentapi.errors import LeaseLost, StoreFault, StoreUnavailable
from workers.outage import QUIET, Outage, ride_out


class Away:
    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise StoreUnavailable("away")
        return "done"


def test_it_comes_back_and_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    waits: list[float] = []
    assert ride_out(Away(6), outage=Outage(), sleep=waits.append) == "done"
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert words(caplog) == ["store.away", "store.back"]


def test_patience_ends() -> None:
    with pytest.raises(StoreUnavailable):
        ride_out(Away(3), outage=Outage(), patience=0, sleep=lambda _: None)
    away = Away(3)
    with pytest.raises(StoreUnavailable):
        ride_out(away, outage=Outage(), give_up=lambda: True)
    assert away.calls == 1


@pytest.mark.parametrize("error", [LeaseLost("gone"), StoreFault("wrong type"), TypeError("x")])
def test_other_errors_are_not_repeated(error: Exception) -> None:
    calls = []

    def refuse() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        ride_out(refuse, outage=Outage())
    assert len(calls) == 1


def words(caplog: pytest.LogCaptureFixture) -> list[str]:
    # Threads of other packages, which other tests have started, may log meanwhile.
    own = (record for record in caplog.records if record.name.startswith("agentapi"))
    return [record.message.split()[0] for record in own]


def test_many_threads_tell_of_one_outage_once(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    for _ in range(3):
        outage.begins(StoreUnavailable("away"))
    outage.ends()
    outage.ends()
    assert words(caplog) == ["store.away", "store.back"]


def test_an_outage_that_flickers_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    outage = Outage(clock=lambda: now)
    for _ in range(5):
        outage.begins(StoreUnavailable("away"))
        now += 1
        outage.ends()
    assert words(caplog) == ["store.away", "store.back"]


def test_one_that_lasts_after_a_flicker_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    outage = Outage(clock=lambda: now)
    outage.begins(StoreUnavailable("away"))
    outage.ends()
    outage.begins(StoreUnavailable("away"))
    now = QUIET + 1
    outage.begins(StoreUnavailable("away"))
    outage.ends()
    assert words(caplog) == ["store.away", "store.back"] * 2
