"""Who sees what in a real browser, and what other web pages can do to the console."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from agentapi.turns import TurnStatus
from orchestrator.handle import TurnHandle
from tests.faults import until
from tests.system.browser import Visits, focused, tab_to, violations
from tests.system.foreign import FIELDS, Foreign, foreign
from tests.system.locked import Locked, sign_in
from tests.system.seen import Seen, conversation_page, turn_page

SECRET = "my pin is 4711"


@pytest.fixture
def stranger() -> Iterator[Foreign]:
    with foreign() as server:
        yield server


def said(locked: Locked, *, agent: str = "desk", message: str = SECRET) -> TurnHandle:
    """A turn of the tenant acme."""
    return locked.orchestrator.enqueue(
        agent, message, conversation_id="acme:talk", tenant_id="acme", user_id="ada"
    )


def test_a_person_signs_in_with_the_keyboard_and_out(visits: Visits, locked: Locked) -> None:
    with visits.visit(locked.url) as visit:
        page = visit.page("/console/turns?status=failed")
        assert violations(page) == []
        now = focused(page)
        assert now is not None
        assert now.tag == "input", "the field has the focus"
        page.keyboard.type("ak-wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        visit.expect("401")
        assert violations(page) == []
        page.keyboard.type(locked.operator)
        page.keyboard.press("Enter")
        page.wait_for_url("**/console/turns?status=failed")
        tab_to(page, "Sign out")
        page.keyboard.press("Enter")
        page.get_by_label("Key").wait_for()
        page.goto(f"{locked.url}/console")
        page.get_by_label("Key").wait_for()
        assert urlsplit(page.url).path == "/console/sign-in"


def test_signing_in_needs_no_scripts(visits: Visits, locked: Locked) -> None:
    with visits.visit(locked.url, scripts=False) as visit:
        page = sign_in(visit, locked.operator)
        assert page.inner_text("h1") == "Fleet"


def test_scripts_cannot_read_the_session(visits: Visits, locked: Locked) -> None:
    with visits.visit(locked.url) as visit:
        page = sign_in(visit, locked.operator)
        page.wait_for_selector("h1")
        [cookie] = visit.context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert page.evaluate("document.cookie") == ""


def test_a_key_shows_what_its_scopes_allow(visits: Visits, locked: Locked) -> None:
    turn = said(locked)
    turn.result(timeout=60)
    places = (turn_page(turn.turn_id), conversation_page(turn.conversation_id))
    for key, sees in ((locked.operator, True), (locked.listener, True), (locked.reader, False)):
        with visits.visit(locked.url) as visit:
            page = sign_in(visit, key)
            page.wait_for_selector("h1")
            for place in places:
                page.goto(f"{locked.url}{place}")
                assert page.get_by_text("completed").count() or place != places[0]
                assert (SECRET in page.content()) is sees, place


def test_other_tenants_see_nothing_of_it(visits: Visits, locked: Locked) -> None:
    turn = said(locked)
    turn.result(timeout=60)
    with visits.visit(locked.url) as visit:
        page = sign_in(visit, locked.stranger)
        page.wait_for_selector("h1")
        for place in (turn_page(turn.turn_id), conversation_page(turn.conversation_id)):
            answer = page.goto(f"{locked.url}{place}")
            assert answer is not None
            assert answer.status == 404
            visit.expect("404")
        for place in ("/console", "/console/turns", "/console/conversations", "/console/approvals"):
            page.goto(f"{locked.url}{place}")
            for word in (turn.turn_id, turn.conversation_id, SECRET, "ada"):
                assert word not in page.content(), place


def test_a_key_for_programs_does_not_open_the_console(visits: Visits, locked: Locked) -> None:
    with visits.visit(locked.url) as visit:
        page = sign_in(visit, locked.program)
        page.get_by_role("alert").wait_for()
        visit.expect("403")
        page.goto(f"{locked.url}/console")
        assert urlsplit(page.url).path == "/console/sign-in"


@pytest.mark.parametrize("place", ["/console", "/console/turns"])
def test_a_name_that_leads_here_by_rebinding_is_refused(
    visits: Visits, seen: Seen, place: str
) -> None:
    port = urlsplit(seen.url).port
    with visits.visit(f"http://rebound.test:{port}", check=False) as visit:
        page = visit.page()
        answer = page.goto(f"{visit.url}{place}")
        assert answer is not None
        assert answer.status == 421
        assert "worker" not in page.content().lower()


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1"])
def test_another_page_cannot_decide(
    visits: Visits, seen: Seen, locked: Locked, stranger: Foreign, host: str
) -> None:
    """Neither where everybody on this machine is let in, nor with somebody's session."""
    for url, orchestrator in ((seen.url, seen.orchestrator), (locked.url, locked.orchestrator)):
        turn = orchestrator.enqueue("desk", '/refund {"order_id": "1", "amount": 1}')
        until(turn.pending)
        with visits.visit(url, check=False) as visit:
            page = visit.page("/console/approvals")
            if url == locked.url:
                page = sign_in(visit, locked.operator, "/console/approvals")
            card = page.locator("form", has=page.get_by_role("button", name="Approve")).first
            action = card.evaluate("(form) => form.action")
            fields = dict(card.evaluate(FIELDS))
            path = stranger.form("/post", action, fields)
            page.goto(f"http://{host}:{stranger.port}{path}")
            page.wait_for_url(f"{url}/**")
            assert "only" in page.inner_text("body")
            page.goto(f"http://{host}:{stranger.port}/empty")
            sent = page.evaluate(
                """async ([action, fields]) => {
                  const body = new URLSearchParams(fields);
                  const options = {method: 'POST', body, mode: 'no-cors', credentials: 'include'};
                  return await fetch(action, options).then((a) => a.type, (e) => e.name);
                }""",
                [action, list(fields.items())],
            )
            assert sent in ("opaque", "TypeError")
            read = page.evaluate(
                """(url) => fetch(url, {credentials: 'include'})
                  .then((answer) => answer.text(), (error) => error.name)""",
                f"{url}/console/approvals",
            )
            assert read == "TypeError"
        assert turn.pending(), "the call still waits"
        assert turn.info().status is TurnStatus.PARKED
        turn.cancel()


def test_another_page_cannot_sign_a_person_out(
    visits: Visits, locked: Locked, stranger: Foreign
) -> None:
    with visits.visit(locked.url, check=False) as visit:
        page = sign_in(visit, locked.operator)
        page.wait_for_selector("h1")
        path = stranger.form("/out", f"{locked.url}/console/sign-out", {})
        page.goto(f"http://evil.test:{stranger.port}{path}")
        page.wait_for_url(f"{locked.url}/**")
        page.goto(f"{locked.url}/console/turns")
        assert page.inner_text("h1") == "Turns"


def test_another_page_cannot_show_the_console_in_a_frame(
    visits: Visits, seen: Seen, stranger: Foreign
) -> None:
    path = stranger.page("/frame", f'<iframe src="{seen.url}/console"></iframe>')
    with visits.visit(seen.url, check=False) as visit:
        page = visit.page()
        page.goto(f"http://evil.test:{stranger.port}{path}")
        page.wait_for_timeout(500)
        [frame] = [frame for frame in page.frames if frame.parent_frame]
        assert "Fleet" not in frame.content()
        assert any("frame" in fault.lower() for fault in visit.faults), visit.faults
