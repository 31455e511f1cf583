"""A person decides about tool calls."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from orchestrator.handle import TurnHandle
from tests.faults import until
from tests.system.browser import Visits, tab_to, too_wide, violations
from tests.system.locked import Locked, sign_in
from tests.system.seen import Seen, turn_page

PATIENCE = 60_000


def asking(seen: Seen | Locked, amount: int) -> TurnHandle:
    """A turn that waits for a decision about a call with this amount."""
    turn = seen.orchestrator.enqueue(
        "desk", f'/refund {{"order_id": "R-{amount}", "amount": {amount}}}', user_id="ada"
    )
    until(turn.pending)
    return turn


def card_of(page: Page, amount: int) -> Locator:
    """The part of the page about a call."""
    return card_with(page, f"R-{amount}")


def card_with(page: Page, text: str) -> Locator:
    """The part of the queue that contains a text."""
    return page.locator(".approval", has_text=text)


def details_of(page: Page, amount: int) -> Page:
    """Go to the page of a call."""
    card_of(page, amount).get_by_role("link", name=re.compile("reason")).click()
    page.get_by_label("Reason").wait_for()
    return page


def reply(turn: TurnHandle) -> str:
    return turn.result(timeout=60).text


@pytest.mark.parametrize("scripts", [True, False])
def test_a_call_is_approved(visits: Visits, seen: Seen, scripts: bool) -> None:
    turn = asking(seen, 71)
    with visits.visit(seen.url, scripts=scripts) as visit:
        page = visit.page("/console/approvals")
        card_of(page, 71).get_by_role("button", name="Approve").click()
        expect(page.get_by_role("status").first).to_be_visible()
        assert reply(turn) == "refund: 71.00 euros of order R-71 were refunded"
        page.goto(f"{seen.url}/console/approvals")
        assert "R-71" not in page.content()


@pytest.mark.parametrize("scripts", [True, False])
def test_a_call_is_rejected_with_a_reason(visits: Visits, seen: Seen, scripts: bool) -> None:
    turn = asking(seen, 72)
    with visits.visit(seen.url, scripts=scripts) as visit:
        page = details_of(visit.page("/console/approvals"), 72)
        page.get_by_label("Reason").fill("It was paid back last week.")
        page.get_by_role("button", name="Reject").click()
        expect(page.locator("main")).to_contain_text("Rejected by")
        assert "It was paid back last week." in reply(turn)


def test_the_arguments_are_edited_before_the_call_is_approved(visits: Visits, seen: Seen) -> None:
    turn = asking(seen, 73)
    with visits.visit(seen.url) as visit:
        page = details_of(visit.page("/console/approvals"), 73)
        arguments = page.get_by_label("Other arguments")
        assert "R-73" in arguments.input_value()
        arguments.fill('{"order_id": "R-73", "amount": "much"}')
        page.get_by_role("button", name="Approve with these").click()
        expect(page.get_by_role("alert")).to_contain_text("amount")
        visit.expect("Failed to load resource")
        assert turn.pending(), "arguments that do not fit the tool are not taken"
        assert "much" in arguments.input_value(), "what was typed is not lost"
        arguments.fill('{"order_id": "R-73", "amount": 7.3}')
        page.get_by_role("button", name="Approve with these").click()
        expect(page.locator("main")).to_contain_text("Approved with other arguments by")
        assert "7.30 euros of order R-73" in reply(turn)


def test_an_answered_call_vanishes_for_everybody(visits: Visits, seen: Seen) -> None:
    turn = asking(seen, 74)
    with visits.visit(seen.url) as one, visits.visit(seen.url) as other:
        theirs = other.page("/console/approvals")
        expect(theirs.get_by_text("R-74").first).to_be_visible()
        theirs.evaluate("window.since = 'the beginning'")
        mine = one.page("/console/approvals")
        card_of(mine, 74).get_by_role("button", name="Approve").click()
        expect(theirs.get_by_text("R-74")).to_have_count(0, timeout=PATIENCE)
        assert theirs.evaluate("window.since") == "the beginning"
        reply(turn)


def test_a_decision_that_comes_too_late_says_so(visits: Visits, seen: Seen) -> None:
    turn = asking(seen, 75)
    with visits.visit(seen.url, scripts=False) as one, visits.visit(seen.url, scripts=False) as two:
        mine, theirs = (visit.page("/console/approvals") for visit in (one, two))
        card_of(mine, 75).get_by_role("button", name="Approve").click()
        reply(turn)
        card_of(theirs, 75).get_by_role("button", name="Reject").click()
        expect(theirs.get_by_role("alert")).to_be_visible()
        two.expect("Failed to load resource")
    assert reply(turn) == "refund: 75.00 euros of order R-75 were refunded"


def test_a_keyboard_is_enough_to_approve(visits: Visits, seen: Seen) -> None:
    turn = asking(seen, 76)
    with visits.visit(seen.url) as visit:
        page = visit.page(turn_page(turn.turn_id))
        tab_to(page, "^refund$")
        page.keyboard.press("Enter")
        page.get_by_label("Reason").wait_for()
        tab_to(page, "^Approve$")
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_contain_text("Approved by")
        assert "76.00 euros" in reply(turn)


def test_the_newest_calls_come_with_what_a_person_needs(visits: Visits, seen: Seen) -> None:
    """Who asks, what for, and what happens when nobody decides."""
    with visits.visit(seen.url, width=320) as visit:
        page = visit.page("/console/approvals")
        text = card_with(page, "A-0987").inner_text()
        for wanted in ("refund", "249", "customer:edsger", "The lamp arrived broken", "rejected"):
            assert wanted in text, text
        assert re.search(r"within 2\d h", text), text
        card_with(page, "A-0987").get_by_role("link", name=re.compile("reason")).click()
        page.get_by_label("Reason").wait_for()
        assert violations(page) == []
        assert too_wide(page) == []


def test_who_decided_is_kept(visits: Visits, locked: Locked) -> None:
    turn = asking(locked, 77)
    with visits.visit(locked.url) as visit:
        page = details_of(sign_in(visit, locked.operator, "/console/approvals"), 77)
        name = page.locator("main .hint code").first.inner_text()
        page.get_by_role("button", name="Approve", exact=True).click()
        expect(page.locator("main")).to_contain_text(f"Approved by {name}")
        reply(turn)
        page.goto(f"{locked.url}{turn_page(turn.turn_id)}")
        assert name in page.inner_text("main")


def test_a_key_that_only_reads_has_no_buttons(visits: Visits, locked: Locked) -> None:
    turn = locked.orchestrator.enqueue(
        "desk", '/refund {"order_id": "R-78", "amount": 78}', tenant_id="acme", user_id="ada"
    )
    until(turn.pending)
    with visits.visit(locked.url) as visit:
        for key in (locked.reader, locked.listener):
            page = sign_in(visit, key, "/console/approvals")
            page.wait_for_selector("h1")
            for place in ("/console/approvals", turn_page(turn.turn_id)):
                page.goto(f"{locked.url}{place}")
                buttons = page.locator("main").get_by_role("button")
                for name in buttons.all_inner_texts():
                    assert not re.search("approve|reject|cancel|retry", name, re.I), place
            page.get_by_role("button", name="Sign out").click()
    turn.cancel()
