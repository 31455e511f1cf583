"""The page of a turn, its forms, and the same over the native API."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from orchestrator.gateway.tenants.scopes import Scope
from tests.faults import until
from tests.gateway.conftest import Served
from tests.gateway.console import HOSTILE, Browser, hidden, new_key, text_of
from tests.gateway.test_native import ended


def browser_of(served: Served, tenant: str, *scopes: Scope) -> Browser:
    browser = Browser(served.url)
    assert browser.sign_in(new_key(served.stack.settings, tenant, scopes)[1]).status_code == 303
    return browser


@pytest.fixture(scope="module")
def operator(served: Served) -> Iterator[Browser]:
    browser = browser_of(served, "acme", Scope.OPERATE, Scope.CONTENT)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def reader(served: Served) -> Iterator[Browser]:
    browser = browser_of(served, "acme", Scope.READ)
    yield browser
    browser.close()


def begin(
    http: httpx2.Client, message: str, conversation: str | None = None, agent: str = "tools"
) -> str:
    body = {"agent": agent, "message": message, "stream": True}
    where = conversation or f"turns-{uuid.uuid4().hex}"
    turn_id: str = http.post(f"/conversations/{where}/turns", json=body).json()["turn_id"]
    return turn_id


def with_a_tool(http: httpx2.Client, text: str = "hello", **more: Any) -> str:
    turn_id = begin(http, f"/echo {json.dumps({'text': text})}", **more)
    ended(http, turn_id)
    return turn_id


def test_a_turn_is_shown_with_its_picture(http: httpx2.Client, operator: Browser) -> None:
    turn_id = with_a_tool(http)
    answer = operator.get(f"/console/turns/{turn_id}")
    assert answer.status_code == 200
    page = text_of(answer.text)
    for shown in ("attempt 1", "model offline", "tool echo", "completed the turn", "in the queue"):
        assert shown in page, page
    assert "<svg" in answer.text
    assert "hello" in page
    assert "Run again from here" in page
    part = operator.part(f"/console/turns/{turn_id}")
    assert part.status_code == 200
    assert "<html" not in part.text
    assert "tool" in part.text


def test_a_reader_sees_what_happened_and_not_what_was_said(
    http: httpx2.Client, reader: Browser
) -> None:
    turn_id = with_a_tool(http, "top secret")
    broken = begin(http, "/broken {}")
    ended(http, broken)
    for each in (turn_id, broken):
        answer = reader.get(f"/console/turns/{each}")
        assert answer.status_code == 200
        assert "completed the turn" in text_of(answer.text)
        for secret in ("top secret", "out of paper", "Run again"):
            assert secret not in answer.text
    for change in ("cancel", "retry", "fork"):
        assert reader.post(f"/console/turns/{turn_id}/{change}").status_code == 403


def test_turns_of_other_tenants_do_not_exist(served: Served, http: httpx2.Client) -> None:
    turn_id = with_a_tool(http)
    stranger = browser_of(served, "evil", Scope.CONTENT, Scope.TURNS)
    for path in (f"/console/turns/{turn_id}", f"/console/turns/000-{'0' * 32}", "/console/turns/x"):
        assert stranger.get(path).status_code == 404
    for change in ("cancel", "retry", "fork"):
        fields = {"operation": uuid.uuid4().hex, "step": "0"}
        assert stranger.post(f"/console/turns/{turn_id}/{change}", **fields).status_code == 404
    with served.http(served.evil) as other:
        assert other.get(f"/turns/{turn_id}/timeline").status_code == 404
        assert other.post(f"/turns/{turn_id}/fork", json={}).status_code == 404
    stranger.close()


def test_hostile_words_are_text(http: httpx2.Client, operator: Browser) -> None:
    turn_id = with_a_tool(http, HOSTILE)
    page = operator.get(f"/console/turns/{turn_id}").text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert "&lt;script&gt;alert" in page


def test_a_turn_that_waits_is_cancelled(http: httpx2.Client, operator: Browser) -> None:
    turn_id = begin(http, '/sign {"paper": "x"}')
    until(lambda: http.get(f"/turns/{turn_id}").json()["status"] == "parked")
    page = operator.get(f"/console/turns/{turn_id}").text
    assert "Cancel the turn" in page
    assert "waits" in text_of(page)
    answer = operator.post(f"/console/turns/{turn_id}/cancel")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/console/turns/{turn_id}"
    page = text_of(operator.get(f"/console/turns/{turn_id}").text)
    assert "The turn was cancelled." in page
    assert "none: the turn ended before" in page


def test_only_a_failed_turn_is_retried(http: httpx2.Client, operator: Browser) -> None:
    done = with_a_tool(http)
    assert operator.post(f"/console/turns/{done}/retry").status_code == 303
    assert "only a failed turn" in operator.get(f"/console/turns/{done}").text
    failed = begin(http, "sunny", agent="faulty")
    assert ended(http, failed)["status"] == "failed"
    assert "Retry from the last recorded step" in operator.get(f"/console/turns/{failed}").text
    assert operator.post(f"/console/turns/{failed}/retry").status_code == 303
    until(lambda: http.get(f"/turns/{failed}").json()["attempt"] == 2)
    ended(http, failed)
    assert "tried again" in text_of(operator.get(f"/console/turns/{failed}").text)


def test_a_turn_runs_again_from_a_step_with_another_message(
    http: httpx2.Client, operator: Browser
) -> None:
    turn_id = with_a_tool(http)
    where = f"/console/turns/{turn_id}"
    operation = hidden(operator.get(where).text, "operation")
    fields = {"operation": operation, "step": "2", "message": HOSTILE}
    first = operator.post(f"{where}/fork", **fields)
    assert first.status_code == 303, first.text
    # A form that is posted twice makes one fork.
    assert operator.post(f"{where}/fork", **fields).headers["location"] == first.headers["location"]
    forked = first.headers["location"].rpartition("/")[2]
    assert ended(http, forked)["input"] == HOSTILE
    page = text_of(operator.get(f"/console/turns/{forked}").text)
    assert f"Runs again {turn_id} from step 2" in page
    assert "shows the copy" in page


def test_a_fork_that_is_refused_keeps_what_was_typed(
    http: httpx2.Client, operator: Browser
) -> None:
    turn_id = with_a_tool(http)
    where = f"/console/turns/{turn_id}"
    fields = {"operation": uuid.uuid4().hex, "step": "1", "message": "typed"}
    refused = operator.post(f"{where}/fork", **fields)
    assert refused.status_code == 400
    assert "it can begin at 0, 2" in refused.text
    assert ">typed</textarea>" in refused.text
    for wrong in ({"operation": "x"}, {"operation": uuid.uuid4().hex, "step": "-1"}):
        assert operator.post(f"{where}/fork", **wrong).status_code == 400


def test_the_timeline_over_the_native_api(http: httpx2.Client) -> None:
    turn_id = with_a_tool(http)
    found = http.get(f"/turns/{turn_id}/timeline").json()
    assert found["complete"]
    assert [step["kind"] for step in found["steps"]] == ["model", "tool", "model"]
    assert found["steps"][1]["message"]["content"] == "hello"
    assert found["attempts"][0]["end"] == "completed"
    # Workers are the operator's.
    assert found["attempts"][0]["worker"] == ""
    assert not found["conversation_id"].startswith("gw:")
    assert http.get(f"/turns/000-{'0' * 32}/timeline").status_code == 404


def test_a_fork_over_the_native_api(http: httpx2.Client) -> None:
    conversation = f"forks-{uuid.uuid4().hex}"
    ended(http, begin(http, "one", conversation))
    turn_id = with_a_tool(http, conversation=conversation)
    body = {"step": 2, "message": "other", "by": "ann"}
    headers = {"idempotency-key": uuid.uuid4().hex}
    first = http.post(f"/turns/{turn_id}/fork", json=body, headers=headers)
    assert first.status_code == 202, first.text
    again = http.post(f"/turns/{turn_id}/fork", json=body, headers=headers)
    assert again.json()["turn_id"] == first.json()["turn_id"]
    copy = first.json()["conversation_id"]
    assert copy.startswith(f"{conversation}~")
    ended(http, first.json()["turn_id"])
    said = http.get(f"/conversations/{copy}/messages").json()["messages"]
    assert [message["role"] for message in said] == [
        *("user", "assistant", "user", "assistant", "tool", "assistant")
    ]
    timeline = http.get(f"/turns/{first.json()['turn_id']}/timeline").json()
    assert timeline["forked_from"] == {"turn_id": turn_id, "step": 2, "by": "ann"}
    wrong = http.post(f"/turns/{turn_id}/fork", json={"step": 1})
    assert wrong.status_code == 400
