"""The queue of approvals, and the page on which a call is decided."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from orchestrator.gateway.tenants.scopes import Scope
from tests.faults import until
from tests.gateway.conftest import Served
from tests.gateway.console import HOSTILE, Browser, text_of
from tests.gateway.test_console_turn import browser_of
from tests.gateway.test_native import ended


@pytest.fixture(scope="module")
def ann(served: Served) -> Iterator[Browser]:
    browser = browser_of(served, "acme", Scope.OPERATE, Scope.CONTENT)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def reader(served: Served) -> Iterator[Browser]:
    browser = browser_of(served, "acme", Scope.READ)
    yield browser
    browser.close()


def asked(http: httpx2.Client, paper: str = "the form") -> tuple[str, str]:
    """A turn that waits for a decision, and its call."""
    message = f"/sign {json.dumps({'paper': paper})}"
    body = {"agent": "tools", "message": message}
    where = f"asked-{uuid.uuid4().hex}"
    turn_id = http.post(f"/conversations/{where}/turns", json=body).json()["turn_id"]
    until(lambda: http.get(f"/turns/{turn_id}/calls").json()["calls"])
    [call] = http.get(f"/turns/{turn_id}/calls").json()["calls"]
    return turn_id, call["call_id"]


def page_of(turn_id: str, call_id: str) -> str:
    return f"/console/approval?{urlencode({'turn': turn_id, 'call': call_id})}"


def decide(browser: Browser, waits: tuple[str, str], verdict: str, **more: str) -> Any:
    turn_id, call_id = waits
    return browser.post(
        "/console/approval/decide", turn=turn_id, call=call_id, verdict=verdict, **more
    )


def test_the_queue_shows_what_waits_and_what_was_answered_vanishes(
    http: httpx2.Client, ann: Browser
) -> None:
    waits = asked(http, "form 27")
    queue = ann.get("/console/approvals").text
    assert waits[0] in queue
    assert "form 27" in queue
    assert "Waits without a time limit" in text_of(queue)
    answer = decide(ann, waits, "approved", **{"from": "queue"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/approvals"
    until(lambda: waits[0] not in ann.part("/console/approvals").text)
    assert ended(http, waits[0])["text"] == "sign: signed form 27"


def test_a_reader_decides_nothing_and_sees_no_arguments(
    http: httpx2.Client, reader: Browser
) -> None:
    waits = asked(http, "secret form")
    queue = reader.get("/console/approvals")
    assert waits[0] in queue.text
    for text in (queue.text, reader.get(page_of(*waits)).text):
        assert "secret form" not in text
        assert "<button name=" not in text
        assert "scope <code>content</code>" in text
    assert decide(reader, waits, "approved").status_code == 403
    http.post(f"/turns/{waits[0]}/cancel")


def test_another_tenant_does_not_see_the_call(served: Served, http: httpx2.Client) -> None:
    waits = asked(http)
    stranger = browser_of(served, "evil", Scope.CONTENT, Scope.TURNS)
    assert waits[0] not in stranger.get("/console/approvals").text
    assert stranger.get(page_of(*waits)).status_code == 404
    assert decide(stranger, waits, "approved").status_code == 404
    http.post(f"/turns/{waits[0]}/cancel")
    stranger.close()


def test_a_call_is_rejected_with_a_reason(http: httpx2.Client, ann: Browser) -> None:
    waits = asked(http, "form 3")
    page = ann.get(page_of(*waits)).text
    assert "form 3" in page
    assert "/sign" in text_of(page)
    answer = decide(ann, waits, "rejected", reason="no ink")
    assert answer.status_code == 303
    assert "no ink" in ended(http, waits[0])["text"]
    page = text_of(ann.get(page_of(*waits)).text)
    assert "Rejected by" in page
    assert "no ink" in page


def test_arguments_are_edited_and_checked_first(http: httpx2.Client, ann: Browser) -> None:
    waits = asked(http, "form 4")
    for wrong, why in (
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"paper": 7}', "paper"),
    ):
        refused = decide(ann, waits, "edited", arguments=wrong)
        assert refused.status_code == 400
        assert why in text_of(refused.text)
        assert refused.text.count("</textarea>") == 2
    assert http.get(f"/turns/{waits[0]}/calls").json()["calls"]
    edited = '{"paper": "form 5"}'
    assert decide(ann, waits, "edited", arguments=edited).status_code == 303
    assert "signed form 5" in ended(http, waits[0])["text"]
    page = text_of(ann.get(page_of(*waits)).text)
    assert "Approved with other arguments by" in page
    assert "form 5" in page
    turn = text_of(ann.get(f"/console/turns/{waits[0]}").text)
    assert "approved with other arguments by" in turn


def test_the_second_one_is_shown_who_was_first(
    served: Served, http: httpx2.Client, ann: Browser
) -> None:
    waits = asked(http)
    turn_id, call_id = waits
    # Somebody else, by the API.
    body = {"verdict": "approved", "by": "bob"}
    assert http.post(f"/turns/{turn_id}/calls/{call_id}", json=body).status_code == 200
    late = decide(ann, waits, "rejected", reason="too late")
    assert late.status_code == 409
    assert "bob decided first" in text_of(late.text)
    assert "Approved by bob" in text_of(late.text)
    assert ended(http, turn_id)["text"] == "sign: signed the form"
    # The part that is asked for again and again says so too.
    assert "Approved by bob" in text_of(ann.part(page_of(*waits)).text)


def test_a_hostile_call_is_text(http: httpx2.Client, ann: Browser) -> None:
    waits = asked(http, HOSTILE)
    for page in (ann.get("/console/approvals").text, ann.get(page_of(*waits)).text):
        assert "<script>alert" not in page
        assert "\u202e" not in page
        assert "&lt;script&gt;alert" in page
    http.post(f"/turns/{waits[0]}/cancel")


def test_what_is_no_decision(http: httpx2.Client, ann: Browser) -> None:
    waits = asked(http)
    assert decide(ann, waits, "maybe").status_code == 400
    assert decide(ann, ("x", waits[1]), "approved").status_code == 400
    assert decide(ann, (waits[0], "other"), "approved").status_code == 409
    missing = ann.get(page_of(waits[0], "other"))
    assert missing.status_code == 200
    assert "is not waiting for a decision" in missing.text
    http.post(f"/turns/{waits[0]}/cancel")
    over = decide(ann, waits, "approved")
    assert over.status_code == 409
    assert "its turn has ended" in over.text
