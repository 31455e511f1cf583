"""Every page of the console: for people with a keyboard, a small window, dark eyes, no scripts."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import urljoin, urlsplit

from playwright.sync_api import Page

from tests.system.browser import NARROW, SCHEMES, Visits, tab_to, too_wide, violations
from tests.system.seen import Seen

ALIKE = 2
"""Pages of one kind that are looked at."""

MOST = 40


def kind_of(path: str) -> str:
    """What kind of page an address is: without ids, values and cursors."""
    parts = urlsplit(path)
    place = re.sub(r"(?<=/)(\d{3}-[0-9a-f]{32}|[^/]*(%|:)[^/]*)", "ID", parts.path)
    return f"{place}?{'&'.join(sorted(re.findall(r'([^&=]+)=', parts.query)))}"


def links(page: Page) -> list[str]:
    """The console's addresses that a page leads to."""
    found: list[str] = page.eval_on_selector_all("a[href]", "(all) => all.map((link) => link.href)")
    places = (urlsplit(urljoin(page.url, address)) for address in found)
    own = urlsplit(page.url).netloc
    return [
        place.path + (f"?{place.query}" if place.query else "")
        for place in places
        if place.netloc == own
        and place.path.startswith("/console")
        and "/static/" not in place.path
    ]


def visit_all(page: Page, seen: Seen) -> list[str]:
    """The addresses of every page, by following all links."""
    known: list[str] = []
    todo, kinds = list(seen.pages), Counter[str]()
    while todo and len(known) < MOST:
        path = todo.pop(0)
        if path in known or (kinds[kind_of(path)] >= ALIKE and path not in seen.pages):
            continue
        answer = page.goto(f"{seen.url}{path}")
        assert answer is not None
        assert answer.status == 200, path
        known.append(path)
        kinds[kind_of(path)] += 1
        todo += links(page)
    return known


def test_every_page_suits_everybody(visits: Visits, seen: Seen) -> None:
    with visits.visit(seen.url) as visit:
        page = visit.page()
        paths = visit_all(page, seen)
        assert len({kind_of(path) for path in paths}) >= 6, paths
        found: list[str] = []
        for path in paths:
            page.goto(f"{seen.url}{path}")
            assert page.title().endswith("agentapi"), path
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                found += [f"{scheme}: {one}" for one in violations(page)]
            page.set_viewport_size({"width": NARROW, "height": 640})
            found += [f"{path}: too wide: {one}" for one in too_wide(page)]
            page.set_viewport_size({"width": 1280, "height": 800})
        assert not found, "\n".join(found)


def test_a_narrow_window_folds_filters_and_shows_whole_rows(visits: Visits, seen: Seen) -> None:
    with visits.visit(seen.url, width=NARROW) as visit:
        page = visit.page("/console/turns?status=completed&agent=support")
        page.get_by_label("Agent").wait_for(state="hidden")
        page.get_by_text("Filters (2 set)").click()
        page.get_by_label("Agent").wait_for(state="visible")
        page.set_viewport_size({"width": 1280, "height": 800})
        page.get_by_text("Filters (2 set)").wait_for(state="hidden")
        page.set_viewport_size({"width": NARROW, "height": 640})
        page.get_by_label("Agent").wait_for(state="hidden")
        hidden = [
            f"{path}: {table}"
            for path in seen.pages
            if page.goto(f"{seen.url}{path}")
            for table in page.eval_on_selector_all(
                ".scroll",
                "(all) => all.filter((one) => one.scrollWidth > one.clientWidth + 1)"
                ".map((one) => one.getAttribute('aria-label'))",
            )
        ]
        assert not hidden


def test_pages_can_be_read_without_scripts(visits: Visits, seen: Seen) -> None:
    with visits.visit(seen.url, scripts=False) as visit:
        page = visit.page("/console")
        for name in ("Fleet", "Conversations", "Turns", "Approvals"):
            page.get_by_role("navigation").get_by_role("link", name=name).click()
            assert page.inner_text("h1") == name
        page.goto(f"{seen.url}/console/conversations")
        page.get_by_role("link", name=seen.world.chat).first.click()
        text = page.inner_text("main")
        assert "Where is my parcel?" in text
        assert "It should arrive on Thursday" in text


def test_a_keyboard_is_enough_to_get_around(visits: Visits, seen: Seen) -> None:
    with visits.visit(seen.url) as visit:
        page = visit.page("/console")
        tab_to(page, "Skip to the content", most=1)
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.goto(f"{seen.url}/console")
        tab_to(page, "^Conversations$")
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/conversations")
        tab_to(page, re.escape(seen.world.chat))
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/conversation?**")
        assert "It should arrive on Thursday" in page.inner_text("main")
