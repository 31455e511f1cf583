"""What a person does with a turn: cancel it, retry it, run it again; and with a conversation."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from agentapi.turns import TurnStatus
from tests.faults import until
from tests.system.browser import Visits
from tests.system.seen import Seen, conversation_page, turn_page

PATIENCE = 30_000


def test_a_running_turn_is_cancelled(visits: Visits, seen: Seen) -> None:
    turn = seen.orchestrator.enqueue("desk", '/nap {"seconds": 50}')
    until(lambda: turn.info().status is TurnStatus.RUNNING)
    with visits.visit(seen.url) as visit:
        page = visit.page(turn_page(turn.turn_id))
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("main")).to_contain_text("cancelled", timeout=PATIENCE)
    until(lambda: turn.info().status is TurnStatus.CANCELLED)


@pytest.mark.parametrize("scripts", [True, False])
def test_a_failed_turn_is_retried(visits: Visits, seen: Seen, scripts: bool) -> None:
    turn = seen.orchestrator.enqueue("faulty", "Hello")
    until(lambda: turn.info().status is TurnStatus.FAILED)
    attempts = turn.info().attempt
    with visits.visit(seen.url, scripts=scripts) as visit:
        page = visit.page(turn_page(turn.turn_id))
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("status").first).to_be_visible()
        until(lambda: turn.info().attempt > attempts)
        until(lambda: turn.info().status is TurnStatus.FAILED)


def test_a_turn_is_run_again_with_another_message(visits: Visits, seen: Seen) -> None:
    turn = seen.orchestrator.enqueue("desk", "Hello", conversation_id="again:1")
    turn.result(timeout=60)
    before = seen.orchestrator.history("again:1")
    with visits.visit(seen.url) as visit:
        page = visit.page(turn_page(turn.turn_id))
        page.get_by_label("Message", exact=True).fill("Good evening")
        page.get_by_role("button", name="Run again").click()
        page.wait_for_url(lambda url: turn.turn_id not in url)
        expect(page.locator("main")).to_contain_text("completed", timeout=PATIENCE)
        expect(page.locator("main")).to_contain_text(turn.turn_id)
        new = page.url.rpartition("/")[2]
    assert seen.orchestrator.turn(new).result(timeout=60).text == "You said: Good evening"
    assert seen.orchestrator.history("again:1") == before, "the turn that was run again stays"


@pytest.mark.parametrize("scripts", [True, False])
def test_a_message_is_sent(visits: Visits, seen: Seen, scripts: bool) -> None:
    conversation = f"sent:{scripts}"
    seen.orchestrator.enqueue("desk", "Hello", conversation_id=conversation).result(timeout=60)
    with visits.visit(seen.url, scripts=scripts) as visit:
        page = visit.page(conversation_page(conversation))
        page.get_by_label("Message", exact=True).fill("And again: hello")
        page.get_by_role("button", name="Send").click()
        page.wait_for_load_state()
        until(lambda: len(seen.orchestrator.history(conversation)) == 4)
        if not scripts:
            page.goto(f"{seen.url}{conversation_page(conversation)}")
        expect(page.locator("main")).to_contain_text("You said: And again", timeout=PATIENCE)


def test_a_conversation_is_started_over(visits: Visits, seen: Seen) -> None:
    conversation = "over:1"
    seen.orchestrator.enqueue("desk", "Hello", conversation_id=conversation).result(timeout=60)
    with visits.visit(seen.url) as visit:
        page = visit.page(conversation_page(conversation))
        page.locator("summary", has_text="Delete the history").click()
        page.get_by_role("checkbox").check()
        page.get_by_role("region", name="Start over").locator("button").click()
        until(lambda: seen.orchestrator.history(conversation) == [])
        expect(page.get_by_role("status").first).to_be_visible()
