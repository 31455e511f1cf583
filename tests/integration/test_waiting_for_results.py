"""Producers that wait for a turn, when what they wait for cannot be read or is gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from agentapi import Settings, load_settings
from agentapi.errors import LoginRefused, StoreFault, TurnNotFound
from agentapi.redis.keys import turn_keys
from orchestrator import AsyncOrchestrator, Orchestrator, aio, handle
from orchestrator.events import follower
from orchestrator.stack import start_valkey
from tests.integration.fleet import Fleet


@pytest.fixture
def fleet(settings_for: Callable[..., Settings]) -> Iterator[Fleet]:
    running = Fleet(settings_for())
    yield running
    running.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    connected = redis.Redis.from_url(redis_url)
    yield connected
    connected.close()


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []

    def call() -> None:
        try:
            answers.append(function())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    return thread, answers


def test_a_turn_whose_events_cannot_be_read_holds_up_no_other(fleet: Fleet, client: Any) -> None:
    good = fleet.producer.enqueue("napper", "hi")
    bad = fleet.producer.enqueue("napper", "hi")
    good_thread, good_answers = in_thread(lambda: good.result(timeout=60))
    bad_thread, bad_answers = in_thread(lambda: bad.result(timeout=60))
    client.set(turn_keys(bad.turn_id).events, "not a stream")
    bad_thread.join(60)
    assert isinstance(bad_answers[0], StoreFault)
    fleet.execute(good.info())
    good_thread.join(60)
    assert good_answers[0].text == "You said: hi"


def test_whoever_waits_for_a_turn_that_is_deleted_is_told(
    fleet: Fleet, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "LOOK_AGAIN", 0.1)
    gone = fleet.producer.enqueue("napper", "hi")
    thread, answers = in_thread(lambda: gone.result(timeout=60))
    client.delete(turn_keys(gone.turn_id).turn, turn_keys(gone.turn_id).events)
    thread.join(60)
    assert isinstance(answers[0], TurnNotFound)


def test_whoever_waits_for_a_turn_whose_last_events_were_lost_gets_its_result(
    fleet: Fleet, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handle, "LOOK_AGAIN", 0.1)
    turn = fleet.producer.enqueue("napper", "hi")
    with Orchestrator(fleet.producer.settings) as other:
        # As if the promoted replica had got the turn's end, and not its events.
        monkeypatch.setattr(other.store, "interrupt", lambda: None)
        monkeypatch.setattr(other.follower, "_deliver", lambda *_: None)
        thread, answers = in_thread(lambda: other.turn(turn.turn_id).result(timeout=60))
        fleet.execute(turn.info())
        thread.join(60)
    assert answers[0].text == "You said: hi"


async def test_the_same_on_asyncio(
    fleet: Fleet, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio, "LOOK_AGAIN", 0.1)
    async with AsyncOrchestrator(fleet.producer.settings) as orchestrator:
        gone = await orchestrator.enqueue("napper", "hi")
        bad = await orchestrator.enqueue("napper", "hi")
        waiting = [asyncio.create_task(turn.result(timeout=60)) for turn in (gone, bad)]
        await asyncio.sleep(0)
        client.delete(turn_keys(gone.turn_id).turn, turn_keys(gone.turn_id).events)
        client.set(turn_keys(bad.turn_id).events, "not a stream")
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(answers[0], TurnNotFound)
    assert isinstance(answers[1], StoreFault)


def test_a_password_that_is_refused_for_long_is_told_and_forgiven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "MAX_LOGIN_REFUSAL", 0.2)
    valkey, url = start_valkey(tmp_path)
    admin: Any = redis.Redis.from_url(url)
    running = Fleet(load_settings(redis_url=url))
    try:
        turn = running.producer.enqueue("napper", "hi")
        thread, answers = in_thread(lambda: turn.result(timeout=60))
        admin.config_set("requirepass", "another")
        # Only who logs in again is refused.
        while not answers:
            admin.client_kill_filter(_type="normal", skipme=True)
            thread.join(0.2)
        assert isinstance(answers[0], LoginRefused)
        admin.config_set("requirepass", "")
        thread, answers = in_thread(lambda: turn.result(timeout=60))
        running.execute(turn.info())
        thread.join(60)
        assert answers[0].text == "You said: hi"
    finally:
        running.close()
        admin.close()
        valkey.stop()
