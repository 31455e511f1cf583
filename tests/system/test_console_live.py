"""Pages that change while somebody looks at them, without being loaded again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, expect

from tests.faults import until
from tests.system.browser import Visits
from tests.system.seen import Seen, turn_page

PATIENCE = 60_000
"""Milliseconds for a change to appear on a busy machine."""


@contextmanager
def never_loaded_again(page: Page) -> Iterator[None]:
    """The page is the same one all the while."""
    page.evaluate("window.since = 'the beginning'")
    yield
    assert page.evaluate("window.since") == "the beginning", "the page was loaded again"


def test_the_fleet_shows_a_worker_that_dies_and_one_that_comes(visits: Visits, seen: Seen) -> None:
    stack = seen.stack
    with visits.visit(seen.url) as visit:
        page = visit.page("/console")
        victim = stack.workers[0]
        row = page.get_by_role("row", name=re.compile(victim.name)).first
        expect(row).to_contain_text("ready", timeout=PATIENCE)
        with never_loaded_again(page):
            stack.workers.remove(victim)
            victim.kill()
            expect(row).not_to_contain_text("ready", timeout=PATIENCE)
            replacement = stack.start_worker()
            there = page.get_by_role("row", name=re.compile(replacement.name)).first
            expect(there).to_contain_text("ready", timeout=2 * PATIENCE)


def test_a_turn_is_seen_to_be_taken_over(visits: Visits, seen: Seen) -> None:
    """A worker dies in the middle of a turn; its page shows the second attempt, and the end."""
    stack = seen.stack
    turn = seen.orchestrator.enqueue("desk", '/nap {"seconds": 15}', user_id="ada")
    until(lambda: turn.info().steps and turn.info().worker)
    with visits.visit(seen.url) as visit:
        page = visit.page(turn_page(turn.turn_id))
        main = page.locator("main")
        expect(main).to_contain_text("running", timeout=PATIENCE)
        with never_loaded_again(page):
            holder = (turn.info().worker or "").partition("@")[0]
            [victim] = [worker for worker in stack.workers if worker.name == holder]
            stack.workers.remove(victim)
            victim.kill()
            stack.start_worker()
            again = page.get_by_role("row", name=re.compile("^attempt 2 "))
            expect(again).to_be_visible(timeout=PATIENCE)
            expect(main).to_contain_text("completed", timeout=2 * PATIENCE)
            expect(main).to_contain_text("rested", timeout=PATIENCE)
    stack.wait_for_workers(len(stack.workers))


def test_a_list_shows_what_is_new(visits: Visits, seen: Seen) -> None:
    with visits.visit(seen.url) as visit:
        page = visit.page("/console/turns")
        with never_loaded_again(page):
            turn = seen.orchestrator.enqueue("desk", "Hello", user_id="newcomer")
            expect(page.get_by_text("newcomer").first).to_be_visible(timeout=PATIENCE)
            turn.result(timeout=60)


def test_the_text_of_a_turn_arrives_while_it_is_written(visits: Visits, seen: Seen) -> None:
    words = " ".join(f"word{number}" for number in range(120))
    turn = seen.orchestrator.enqueue("slow", words, stream=True)
    with visits.visit(seen.url) as visit:
        page = visit.page(turn_page(turn.turn_id))
        with never_loaded_again(page):
            expect(page.locator("main")).to_contain_text(f"You said: {words}", timeout=PATIENCE)
            expect(page.locator("main")).to_contain_text("completed", timeout=PATIENCE)


def test_the_keyboard_stays_where_it_is_while_a_page_changes(visits: Visits, seen: Seen) -> None:
    with visits.visit(seen.url) as visit:
        page = visit.page("/console/turns")
        link = page.locator("main").get_by_role("link").first
        link.focus()
        address = page.evaluate("document.activeElement.href")
        seen.orchestrator.enqueue("desk", "Hello", user_id="another").result(timeout=60)
        expect(page.get_by_text("another").first).to_be_visible(timeout=PATIENCE)
        assert page.evaluate("document.activeElement.href") == address
