"""Replies that are cut off and contexts that are too small, with every provider and kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentapi import EventType, FinishReason
from agentapi.testing import assert_valid_history
from orchestrator import Orchestrator, TurnHandle
from orchestrator.stack import Stack
from tests.fakes.small import CONTEXT, SmallModel, reply_to, small_model
from tests.faults import kill, until

PROVIDERS = ["openai", "openrouter", "gemini", "offline"]

LONG = " ".join(f"word{number}" for number in range(24))
"""A message whose reply takes several parts."""


@pytest.fixture(scope="module")
def model() -> Iterator[SmallModel]:
    with small_model() as running:
        yield running


@pytest.fixture(scope="module")
def stack(model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("stack")
    with Stack(
        folder,
        agents=("tests.acceptance.small_agents",),
        workers=2,
        flower=False,
        env={
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": f"{model.url}/v1",
            "OPENROUTER_API_KEY": "k",
            "OPENROUTER_BASE_URL": f"{model.url}/v1",
            "GEMINI_API_KEY": "k",
            "GOOGLE_GEMINI_BASE_URL": model.url,
            "AGENTAPI_OFFLINE_CONTEXT": str(CONTEXT),
            "AGENTAPI_OFFLINE_CHUNK_DELAY": "0.2",
        },
        heartbeat=0.5,
        dispatch_grace=1,
    ) as running:
        yield running


@pytest.fixture
def orchestrator(stack: Stack) -> Iterator[Orchestrator]:
    with Orchestrator(stack.settings) as running:
        yield running
    while len(stack.workers) < 2:
        stack.start_worker()
    stack.wait_for_workers(2)


def test_a_conversation_outgrows_its_model(orchestrator: Orchestrator, model: SmallModel) -> None:
    refused: dict[str, list[int]] = {provider: [] for provider in PROVIDERS}
    for number in range(7):
        messages = {provider: f"{provider} {number}: {LONG}" for provider in PROVIDERS}
        turns = {
            provider: orchestrator.enqueue(provider, said, conversation_id=f"grows:{provider}")
            for provider, said in messages.items()
        }
        for provider, turn in turns.items():
            result = turn.result(timeout=150)
            assert result.text == reply_to(messages[provider])
            assert result.finish_reason is FinishReason.STOP
            refused[provider].append(model.parts_of(messages[provider]).count(None))
    for provider in PROVIDERS:
        history = orchestrator.history(f"grows:{provider}")
        assert len(history) == 14
        assert_valid_history(history)
        # It overflows, heals in the same turn, and does not overflow again.
        assert sum(refused[provider][-3:]) == 0
        assert sum(refused[provider]) > 0 or provider == "offline"


def test_a_message_that_is_too_long_by_itself_fails_alone(orchestrator: Orchestrator) -> None:
    fits = orchestrator.enqueue("openai", "short", conversation_id="alone")
    fits.result(timeout=150)
    too_long = orchestrator.enqueue("openai", "x" * 8 * CONTEXT, conversation_id="alone")
    behind = orchestrator.enqueue("openai", "short again", conversation_id="alone")
    assert behind.result(timeout=150).text == "You said: short again"
    error = too_long.info().error
    assert error is not None
    assert (error.code, error.status) == ("context_too_long", 400)
    assert "shorten the message" in error.message


def test_a_reply_is_whole_after_kill_9(
    stack: Stack, orchestrator: Orchestrator, model: SmallModel
) -> None:
    model.held.set()
    messages = {provider: f"{provider} dies: {LONG} {LONG}" for provider in PROVIDERS}
    turns: dict[str, TurnHandle] = {}

    def begin(*providers: str) -> None:
        """Each has two recorded parts, and the third is on its way."""
        for provider in providers:
            turns[provider] = orchestrator.enqueue(
                provider, messages[provider], conversation_id=f"dies:{provider}", stream=True
            )
        until(lambda: all(turn.info().steps >= 2 for turn in turns.values()), what="two parts")

    begin(*(provider for provider in PROVIDERS if provider != "offline"))
    # The last, because nothing holds its third part.
    begin("offline")
    for victim in list(stack.workers):
        kill(stack, victim)
    model.held.clear()
    stack.start_worker()
    for provider, turn in turns.items():
        result = turn.result(timeout=150)
        assert result.text == reply_to(messages[provider])
        assert result.finish_reason is FinishReason.STOP
        assert turn.info().attempt > 1
        assert text_of(turn) == result.text
        [said, reply] = orchestrator.history(f"dies:{provider}")
        assert (said["content"], reply["content"]) == (messages[provider], result.text)
        # No part that was recorded was asked for again.
        parts = [len(begun) for begun in model.parts_of(messages[provider]) if begun is not None]
        assert sorted(parts) == parts
        assert len(parts) - len(set(parts)) <= turn.info().attempt - 1


def text_of(turn: TurnHandle) -> str:
    """The text as a reader of the events sees it."""
    text = kept = ""
    for event in turn.events(timeout=150):
        if event.type is EventType.DELTA:
            text += event.data["text"]
        elif event.type is EventType.STEP:
            kept = text
        elif event.type is EventType.RESET:
            text = kept
    return text
