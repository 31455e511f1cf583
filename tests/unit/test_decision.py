"""What becomes of a turn whose run raised an error."""

from __future__ import annotations

import asyncio

import pytest

from agentapi.conversation.messages import AssistantMessage, ToolCall, Usage, UserMessage
from agentapi.engine.progress import TurnProgress
from agentapi.errors import (
    AgentAPIError,
    LoginRefused,
    MaxStepsExceeded,
    ProviderUnavailable,
    StoreUnavailable,
)
from agentapi.signals import LeaseLost, RuntimeSignal, TurnParked
from agentapi.turns import ModelStep, TurnStatus
from workers.turns.decision import (
    Abandon,
    AbandonReason,
    Commit,
    HandBack,
    Park,
    TurnDecision,
    decide,
)
from workers.turns.running import StopReason


def decided(error: BaseException, stopped_for: StopReason | None = None) -> TurnDecision:
    return decide(error, TurnProgress(user=UserMessage(content="hi", turn_id="t")), stopped_for)


def ending_of(decision: TurnDecision) -> tuple[TurnStatus, str | None]:
    assert isinstance(decision, Commit)
    error = decision.ending.error
    return decision.ending.status, error.code if error else None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MaxStepsExceeded("too many"), "max_steps"),
        (ProviderUnavailable("away"), "provider_unavailable"),
        (ZeroDivisionError("a fault"), "internal"),
        (SystemExit(3), "internal"),
        (MemoryError(), "internal"),
    ],
)
@pytest.mark.parametrize("stopped_for", [None, *StopReason])
def test_errors_and_faults_end_the_turn(
    error: BaseException, code: str, stopped_for: StopReason | None
) -> None:
    assert ending_of(decided(error, stopped_for)) == (TurnStatus.FAILED, code)


def test_a_cancelled_run_follows_the_reason() -> None:
    cancelled = asyncio.CancelledError()
    assert decided(cancelled, StopReason.SHUTDOWN) == HandBack()
    lost = Abandon(reason=AbandonReason.LEASE_LOST)
    assert decided(cancelled, StopReason.LEASE_LOST) == lost
    assert ending_of(decided(cancelled, StopReason.CANCELLED)) == (TurnStatus.CANCELLED, None)
    assert ending_of(decided(cancelled)) == (TurnStatus.FAILED, "internal")


def test_signals_do_not_end_the_turn() -> None:
    parked = TurnParked("later", delay=3, failures=2)
    assert decided(parked) == Park(delay=3, failures=2)
    assert decided(LeaseLost("gone")) == Abandon(reason=AbandonReason.LEASE_LOST)


def test_a_store_that_is_away_does_not_end_the_turn() -> None:
    for error in (StoreUnavailable("away"), LoginRefused("password")):
        decision = decided(error)
        assert isinstance(decision, Abandon)
        assert decision.reason.value == error.code
        # The turn is stored up to its last step, and the worker is ending anyway.
        assert decided(error, StopReason.SHUTDOWN) == HandBack()


def test_an_ending_keeps_what_was_spent_and_closes_open_calls() -> None:
    progress = TurnProgress(user=UserMessage(content="hi", turn_id="t"))
    call = ToolCall(id="1", name="nap", arguments={})
    message = AssistantMessage(content="", tool_calls=(call,))
    progress.steps.append(ModelStep(message=message, usage=Usage(input_tokens=3)))
    decision = decide(asyncio.CancelledError(), progress, StopReason.CANCELLED)
    assert isinstance(decision, Commit)
    assert (decision.ending.steps, decision.ending.usage) == (1, Usage(input_tokens=3))
    assert [message.role for message in decision.ending.messages] == ["user", "assistant", "tool"]


def test_no_signal_passes_for_an_error() -> None:
    waiting = [RuntimeSignal]
    while waiting:
        signal = waiting.pop()
        assert not issubclass(signal, AgentAPIError)
        waiting += signal.__subclasses__()
