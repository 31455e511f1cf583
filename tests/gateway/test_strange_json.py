"""JSON that cannot be stored or sent gets 400 in OpenAI's shape, on every route."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import Served

HALF = r'"\ud83d"'
STRANGE = {
    "half of a surrogate pair": HALF,
    "the other half": r'"\ude00 x"',
    "NUL": r'"a\u0000b"',
    "a huge integer": "1" * 5000,
    "more than 64 bits": "18446744073709551616",
    "not a number": "NaN",
    "infinity": "-Infinity",
    "too large a number": "1e999",
    "deep nesting": "[" * 100 + "]" * 100,
    "very deep nesting": '{"a":' * 100_000 + "1" + "}" * 100_000,
}

PLACES = {
    "/v1/responses": [
        '{"model": "tools", "input": %s}',
        '{"model": %s, "input": "hi"}',
        '{"model": "tools", "input": "hi", "conversation": %s}',
        '{"model": "tools", "input": "hi", "conversation": {"id": %s}}',
        '{"model": "tools", "input": "hi", "previous_response_id": %s}',
        '{"model": "tools", "input": "hi", "metadata": {"a": %s}}',
        '{"model": "tools", "input": "hi", "user": %s}',
        '{"model": "tools", "input": "hi", "tools": [%s]}',
        '{"model": "tools", "input": [{"role": "assistant", "content": %s}, '
        '{"role": "user", "content": "x"}]}',
        '{"model": "tools", "input": [{"role": "user", "content": [{"type": "input_text", '
        '"text": %s}]}]}',
        '{"model": "tools", "input": [{"role": "user", "content": [{"type": "input_image", '
        '"image_url": %s}]}]}',
        '{"model": "tools", "input": "hi", "surely unknown": %s}',
        "%s",
    ],
    "/v1/chat/completions": [
        '{"model": "tools", "messages": [{"role": "user", "content": %s}]}',
        '{"model": "tools", "messages": [{"role": %s, "content": "x"}]}',
        '{"model": "tools", "messages": [{"role": "user", "content": "x"}], "metadata": '
        '{"conversation_id": %s}}',
    ],
    "/v1/conversations": [
        '{"metadata": {"a": %s}}',
        '{"items": [{"type": "message", "role": "user", "content": %s}]}',
        '{"items": [{"type": %s}]}',
    ],
    "/v1/conversations/{conversation}": ['{"metadata": {"a": %s}}'],
    "/v1/conversations/{conversation}/items": ['{"items": [{"role": "user", "content": %s}]}'],
    "/conversations/s:1/turns": [
        '{"agent": "tools", "message": %s}',
        '{"agent": %s, "message": "x"}',
        '{"agent": "tools", "message": "x", "user_id": %s}',
        '{"agent": "tools", "message": "x", "metadata": {"a": [%s]}}',
        '{"agent": "tools", "message": "x", "on_busy": %s}',
    ],
    "/turns/{turn}/calls/c": ['{"verdict": "approved", "reason": %s}', '{"verdict": %s}'],
}

KEYS = [r'{"model": "tools", "input": "hi", "\ud83d": 1}', r'{"\u0000": 1}']


@pytest.fixture(scope="module")
def names(served: Served) -> dict[str, str]:
    with served.http() as http:
        conversation = http.post("/v1/conversations", json={}).json()["id"]
        body = {"agent": "tools", "message": "hi"}
        turn = http.post("/conversations/s:0/turns", json=body).json()["turn_id"]
        return {"conversation": conversation, "turn": turn}


@pytest.mark.parametrize("what", STRANGE)
def test_everywhere(served: Served, http: httpx2.Client, names: dict[str, str], what: str) -> None:
    for route, places in PLACES.items():
        for place in places:
            refuse(http, route.format(**names), place.replace("%s", STRANGE[what]))
    assert served.stack.gateway is not None
    assert "request.crashed" not in served.stack.gateway.log.read_text()


@pytest.mark.parametrize("body", [*KEYS, "", "{", "\ufeff{}", '"text"', "[]", "null"])
def test_other_bodies(http: httpx2.Client, names: dict[str, str], body: str) -> None:
    refuse(http, "/v1/responses", body)
    refuse(http, f"/v1/conversations/{names['conversation']}/items", body)


@pytest.mark.parametrize("body", [b"\xff\xfe{\x00}\x00", b'{"input": "\xed\xa0\x80"}', b"\x00"])
def test_bytes_that_are_no_text(http: httpx2.Client, body: bytes) -> None:
    refuse(http, "/v1/responses", body)


def refuse(http: httpx2.Client, url: str, body: str | bytes) -> None:
    content = body.encode() if isinstance(body, str) else body
    answer = http.post(url, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400, (url, body[:200], answer.text)
    error: dict[str, Any] = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}


def test_what_is_only_unusual_is_taken(http: httpx2.Client) -> None:
    body = r'{"agent": "tools", "message": "\ud83d\ude00 \\u0000 \u2028", "metadata": {"n": %d}}'
    content = (body % (2**63 - 1)).encode()
    headers = {"content-type": "application/json"}
    answer = http.post("/conversations/s:2/turns", content=content, headers=headers)
    assert answer.status_code == 202
    assert answer.json()["input"] == "\U0001f600 \\u0000 \u2028"
    assert answer.json()["metadata"] == {"n": 2**63 - 1}
