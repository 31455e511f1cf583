"""The event loop's thread ends in order, whatever the providers of users do."""

from __future__ import annotations

import pytest

from agentapi.providers import providers
from agentapi.supervision import Supervisor
from tests.faults import until
from workers.upkeep.loop_thread import LoopThread


class Panic(BaseException):
    """Like the panics of extensions written in Rust: not an Exception."""


@pytest.mark.parametrize("error", [RuntimeError, Panic])
def test_a_provider_that_cannot_be_closed_does_not_keep_the_loop(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse() -> None:
        raise error

    monkeypatch.setattr(providers, "aclose", refuse)
    thread = LoopThread(Supervisor(fatal=None))
    thread.start()
    until(lambda: thread._ident)
    thread.stop()
    assert thread.loop.is_closed()
    assert f"loop.not_closed error={error.__name__}" in caplog.text
