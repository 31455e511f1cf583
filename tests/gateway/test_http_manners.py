"""What HTTP clients of all kinds expect: HEAD, CORS, errors that say what is missing, a page."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from agentapi.errors import ConfigurationError
from orchestrator.gateway.settings import load_gateway_settings
from orchestrator.stack import Stack

PAGE = "https://app.example.org"


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/openapi.json", "/v1/models", "/v1/models/tools"]
)
def test_head(http: httpx2.Client, path: str) -> None:
    answer, whole = http.head(path), http.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == whole.headers["content-type"]
    assert answer.headers["x-request-id"]
    assert http.head("/v1/models/nobody").status_code == 404
    # The connection is still in step.
    assert http.get("/healthz").json() == {"status": "ok"}


def test_a_page_says_what_is_here(http: httpx2.Client) -> None:
    with httpx2.Client(base_url=http.base_url, timeout=150) as anybody:
        answer = anybody.get("/", headers={"host": 'x"><script>alert(1)</script>'})
        assert "<script>" not in answer.text
        answer = anybody.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    base = str(http.base_url).rstrip("/")
    for named in ("/v1/models", "/openapi.json", "/healthz", "/readyz", f"{base}/v1"):
        assert named in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("POST", "/v1/completions", 404, "use POST /v1/chat/completions"),
        ("POST", "/v1/embeddings", 404, "does not serve embeddings"),
        ("GET", "/v1/files", 404, "send images and files with a message"),
        ("POST", "/v1/audio/speech", 404, "reply in text"),
        ("POST", "/openai/deployments/x/chat/completions", 404, "Azure's paths"),
        ("POST", "/chat/completions", 404, "below /v1"),
        ("GET", "/v1/models/", 404, "remove the trailing slash"),
        ("GET", "/v1/nothing", 404, "there is no route GET /v1/nothing"),
        ("DELETE", "/v1/models", 405, "takes GET"),
        ("POST", "/v1/responses/resp_1", 405, "there is no route POST /v1/responses/resp_1"),
    ],
)
def test_a_route_that_is_missing_is_named(
    http: httpx2.Client, method: str, path: str, status: int, said: str
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert said in error["message"]
    assert set(error) == {"message", "type", "param", "code"}


def test_a_body_that_is_not_declared_as_json(http: httpx2.Client) -> None:
    body = b'{"model": "tools", "input": "hi"}'
    for path in ("/v1/responses", "/v1/conversations", "/conversations/c/turns"):
        for declared in ("text/plain", "application/x-www-form-urlencoded", ""):
            headers = {"content-type": declared} if declared else {}
            answer = http.post(path, content=body, headers=headers)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (400, "unsupported_content_type")
            assert "content-type: application/json" in error["message"]
    headers = {"content-type": "application/json; charset=utf-8"}
    assert http.post("/v1/responses", content=body, headers=headers).status_code == 200
    encoded = {**headers, "content-encoding": "gzip"}
    packed = http.post("/v1/responses", content=gzip.compress(body), headers=encoded)
    assert packed.json()["error"]["code"] == "unsupported_content_encoding"
    deep = b'{"model": "tools", "input": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    nested = http.post("/v1/responses", content=deep, headers=headers)
    assert (nested.status_code, nested.json()["error"]["code"]) == (400, "invalid_json")
    # An empty body needs no type.
    assert http.post("/v1/conversations").status_code == 200


def test_no_page_may_read_answers_unless_it_is_named(http: httpx2.Client) -> None:
    answer = http.get("/v1/models", headers={"origin": PAGE})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


def test_pages_of_named_origins(stack_for: Callable[..., Stack]) -> None:
    stack = stack_for(gateway_origins=PAGE, gateway_require_keys=True)
    asks = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    with httpx2.Client(base_url=str(stack.gateway_url), timeout=150) as http:
        allowed = http.options("/v1/responses", headers=asks)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
        refused = http.options("/v1/responses", headers={**asks, "origin": "https://evil.example"})
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
        # The page can read why it was refused.
        answer = http.get("/v1/models", headers={"origin": PAGE})
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "x-agentapi-ignored" in answer.headers["access-control-expose-headers"].lower()


def test_an_origin_has_no_path() -> None:
    for wrong in ("app.example.org", "https://app.example.org/page", "https://*.example.org"):
        with pytest.raises(ConfigurationError, match="AGENTAPI_GATEWAY_ORIGINS"):
            load_gateway_settings(gateway_origins=wrong)
    both = load_gateway_settings(gateway_origins="https://a.example, http://localhost:3000")
    assert both.gateway_origins == ("https://a.example", "http://localhost:3000")


def test_tokens_are_estimated(client: openai.OpenAI) -> None:
    counted = client.responses.input_tokens.count(model="tools", input="x" * 4000)
    assert 900 < counted.input_tokens < 1200
    more = client.responses.input_tokens.count(
        model="tools", input="x" * 4000, instructions="y" * 4000
    )
    assert more.input_tokens - counted.input_tokens == pytest.approx(1000, abs=2)
    first = client.responses.create(model="tools", input="z" * 8000)
    after = client.responses.input_tokens.count(
        model="tools", input="hi", previous_response_id=first.id
    )
    # What was said, and what was replied.
    assert after.input_tokens > 3900
    conversation = client.conversations.create(
        items=[{"role": "user", "content": "w" * 4000, "type": "message"}]
    )
    named = client.responses.input_tokens.count(model="tools", conversation=conversation.id)
    assert named.input_tokens > 900


def test_a_conversation_is_compacted(client: openai.OpenAI) -> None:
    said: Any = [
        {"role": "user", "content": "My dog is called Rex."},
        {"role": "assistant", "content": "A fine name."},
        {"role": "user", "content": "He is three."},
    ]
    short = client.responses.compact(model="tools", input=said)
    assert [item.type for item in short.output] == ["compaction"]
    assert short.usage.total_tokens > 0
    # The offline model repeats what it is to summarise.
    again: Any = [*short.output, {"role": "user", "content": "What did I say?"}]
    made = client.responses.create(model="tools", input=again)
    assert made.output_text.startswith("You said 1 thing: What was said earlier in this")
    assert "user: My dog is called Rex.\nassistant: A fine name." in made.output_text
    # An agent with a type of its own summarises in words, and no tools are called for a summary.
    typed = client.responses.compact(model="weather", input='Call echo: /echo {"text": "x"}')
    assert typed.output[-1].type == "compaction"
    with pytest.raises(openai.BadRequestError, match="not a compaction that this gateway made"):
        client.responses.create(
            model="tools",
            input=[{"type": "compaction", "encrypted_content": "gAAAA"}, *again[-1:]],
        )
