"""What people, models and tools say is shown as text, whatever it is."""

from __future__ import annotations

import json

from orchestrator.handle import TurnHandle
from tests.faults import until
from tests.system.browser import NARROW, Visit, Visits, too_wide, violations
from tests.system.seen import Seen, conversation_page, turn_page

SCRIPT = "<script>alert('said')</script>"
IMAGE = "<img src=x onerror=\"alert('image')\">"
BREAKS_OUT = "\"'></textarea></pre></details></main><h1>I am the page</h1>"
TEMPLATE = "{{ 7 * 7 }} {% raw %} ${7*7} &lt;b&gt;"
DIRECTION = "abc\u202egnitset\u202c \u2066\u05d0\u05d1 def\u2069 \u0645\u0631\u062d\u0628\u0627"
CONTROLS = "bell\x07 escape\x1b[31mred\x1b[0m null-ish\x01 zero\u200bwidth"
LONG_WORD = "w" * 5_000
SAYS = "\n".join([SCRIPT, IMAGE, BREAKS_OUT, TEMPLATE, DIRECTION, CONTROLS, LONG_WORD])

CONVERSATION = f"evil/{SCRIPT}?a=1&b=#x"
USER = f"<b>user</b>{DIRECTION}"

MEGABYTE = 1_048_576
MOST = 400_000
"""Characters of a page that shows the beginning of something long."""


def hostile(seen: Seen) -> list[TurnHandle]:
    """Turns whose ids, messages, arguments, results and errors all mean harm."""

    def ask(agent: str, message: str) -> TurnHandle:
        return seen.orchestrator.enqueue(
            agent, message, conversation_id=CONVERSATION, user_id=USER, stream=True
        )

    turns = [
        ask("desk", SAYS),
        ask("desk", f"/echo {json.dumps({'text': SAYS})}"),
        ask("desk", f"/unroll {json.dumps({'text': SCRIPT + IMAGE, 'times': 15_000})}"),
        ask("faulty", SAYS),
        ask("desk", f"/refund {json.dumps({'order_id': SAYS, 'amount': 1})}"),
    ]
    for turn in turns[:4]:
        until(lambda turn=turn: turn.info().status.ended)  # type: ignore[misc]
    until(turns[4].pending)
    return turns


def look(visit: Visit, path: str, *, watch: bool = False) -> str:
    """Open a page, and check that nothing on it is more than text; returns what one reads.

    Args:
        visit: Who looks.
        path: The page.
        watch: Whether to stay until its live part was asked for again.
    """
    page = visit.page()
    answer = page.goto(f"{visit.url}{path}")
    assert answer is not None
    assert answer.status == 200, path
    assert len(answer.text()) < MOST, path
    page.eval_on_selector_all("main details", "(all) => all.forEach((one) => { one.open = true; })")
    text = page.inner_text("main")
    assert [h1.strip() for h1 in page.locator("h1").all_inner_texts()] != ["I am the page"]
    assert page.locator("h1").count() == 1, path
    assert page.locator("main img, main script, main iframe").count() == 0, path
    # They would change how all that follows is read.
    for character in "\u202e\u2066\x07\x1b\x01":
        assert character not in text, (path, character)
    assert violations(page) == []
    page.set_viewport_size({"width": NARROW, "height": 640})
    assert too_wide(page) == []
    if watch:
        page.wait_for_timeout(3_500)
    page.close()
    return text


def test_what_is_said_stays_text_on_every_page(visits: Visits, seen: Seen) -> None:
    turns = hostile(seen)
    with visits.visit(seen.url) as visit:
        for path in ("/console/turns", "/console/conversations", "/console"):
            look(visit, path)
        conversation = look(visit, conversation_page(CONVERSATION), watch=True)
        assert SCRIPT in conversation
        assert TEMPLATE.strip() in conversation
        for turn in turns:
            look(visit, turn_page(turn.turn_id))
        approvals = look(visit, "/console/approvals", watch=True)
        assert SCRIPT in approvals
        shown = look(visit, turn_page(turns[0].turn_id), watch=True)
        assert SCRIPT in shown
        assert IMAGE in shown
    turns[4].cancel()


def test_filters_and_addresses_stay_text_too(visits: Visits, seen: Seen) -> None:
    with visits.visit(seen.url, check=False) as visit:
        for path in (
            f"/console/turns?user={SCRIPT}",
            f"/console/turns?status={SCRIPT}",
            f"/console/turns?cursor={IMAGE}",
            f"/console/conversations?user={IMAGE}&agent={SCRIPT}",
            f"/console/conversation?id={SCRIPT}",
            f"/console/turns/{SCRIPT}",
            f"/console/{SCRIPT}",
            f"/console/sign-in?next=javascript:alert(1)//{SCRIPT}",
        ):
            page = visit.page()
            answer = page.goto(f"{visit.url}{path}")
            assert answer is not None
            assert answer.status < 500, path
            assert page.locator("main script, main img").count() == 0
            page.close()
        # Browsers report an answer of 404 as an error, too.
        assert not [fault for fault in visit.faults if "Failed to load" not in fault]
