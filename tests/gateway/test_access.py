"""Keys, limits, and where the gateway may listen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import openai
import pytest

from orchestrator.gateway.services import ACTIVE_REQUESTS
from orchestrator.stack import Stack
from orchestrator.stack.processes import free_port
from tests.faults import until
from tests.gate import Gate
from tests.gateway.conftest import TIMEOUT, Served

SECRET = "a-word-that-only-the-user-said"


def agentapi(redis_url: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", *arguments],
        env={**os.environ, "AGENTAPI_REDIS_URL": redis_url, "COLUMNS": "200", **env},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_keys_from_their_making_to_their_end(stack_for: Callable[..., Stack]) -> None:
    stack = stack_for()
    url = stack.redis_url
    http = httpx2.Client(base_url=stack.gateway_url or "", timeout=TIMEOUT)
    assert http.get("/v1/models").status_code == 200  # no keys, loopback only
    made = agentapi(url, "keys", "create", "acme", "--label", "CI")
    secret = made.stdout.strip()
    assert secret.startswith("ak-")
    assert http.get("/v1/models").status_code == 401
    bearer = {"authorization": f"Bearer {secret}"}
    assert http.get("/v1/models", headers=bearer).status_code == 200
    listed = agentapi(url, "keys", "list").stdout
    assert "acme" in listed
    assert "CI" in listed
    assert secret not in listed
    key_id = next(word for word in listed.split() if word.startswith("key_"))
    import redis

    client = redis.Redis.from_url(url)
    dumped = b"".join(client.dump(key) or b"" for key in client.scan_iter("agentapi:gateway:*"))
    assert b"acme" in dumped
    assert secret.encode() not in dumped
    client.close()
    assert "is revoked" in agentapi(url, "keys", "revoke", key_id).stdout
    # Revoking the last key does not open the gateway again.
    for headers in (bearer, {}):
        assert http.get("/v1/models", headers=headers).status_code == 401
    refused = agentapi(url, "keys", "revoke", "key_none")
    assert (refused.returncode, "there is no key" in refused.stderr) == (3, True)
    refused = agentapi(url, "keys", "create", "a:b")
    assert (refused.returncode, "tenant's name is not valid" in refused.stderr) == (2, True)
    log = stack.gateway.log.read_text() if stack.gateway else ""
    assert secret not in log
    http.close()


def test_beyond_loopback_only_with_keys(redis_url: str) -> None:
    env = {"AGENTAPI_GATEWAY_HOST": "0.0.0.0", "AGENTAPI_GATEWAY_PORT": str(free_port())}
    refused = agentapi(redis_url, "gateway", **env)
    assert refused.returncode == 2
    assert "there are no keys" in refused.stderr
    assert "Traceback" not in refused.stderr
    eager = agentapi(redis_url, "gateway", AGENTAPI_EAGER="true")
    assert (eager.returncode, "AGENTAPI_EAGER is set" in eager.stderr) == (2, True)


def test_a_port_that_is_taken(redis_url: str, served: Served) -> None:
    port = served.url.rsplit(":", 1)[1]
    refused = agentapi(redis_url, "gateway", AGENTAPI_GATEWAY_PORT=port)
    assert refused.returncode == 2
    assert "cannot listen on 127.0.0.1" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_requests_a_minute(stack_for: Callable[..., Stack]) -> None:
    stack = stack_for(gateway_requests_per_minute=30)
    http = httpx2.Client(base_url=stack.gateway_url or "", timeout=TIMEOUT)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.get("/turns/none"), range(40)))
    refused = [answer for answer in answers if answer.status_code == 429]
    # One comes back every two seconds while the test runs.
    assert 1 <= len(refused) <= 10
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == "30"
        assert answer.headers["x-ratelimit-reset-requests"].endswith("s")
    left = [int(a.headers["x-ratelimit-remaining-requests"]) for a in answers if a not in refused]
    assert max(left) == 29
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused[0].headers["retry-after"]) <= 3
    with openai.OpenAI(base_url=f"{stack.gateway_url}/v1", api_key="-", max_retries=0) as client:

        def use_it_up() -> None:
            for _ in range(100):
                client.models.list()

        with pytest.raises(openai.RateLimitError) as caught:
            use_it_up()
        assert caught.value.code == "rate_limit_exceeded"
        # The real client waits as told, and succeeds.
        assert client.with_options(max_retries=4).models.list().data
    http.close()


def test_turns_in_flight(stack_for: Callable[..., Stack]) -> None:
    stack = stack_for(gateway_turns_in_flight=3, heartbeat=0.3)
    with openai.OpenAI(base_url=f"{stack.gateway_url}/v1", api_key="-", max_retries=0) as client:

        def start() -> str:
            asked = '/nap {"seconds": 600}'
            return client.responses.create(model="tools", input=asked, background=True).id

        running = [start() for _ in range(3)]
        with pytest.raises(openai.RateLimitError) as caught:
            start()
        assert caught.value.code == "turns_in_flight_exceeded"
        assert caught.value.response.headers["retry-after"] == "1"
        client.responses.cancel(running[0])
        assert client.responses.create(model="tools", input="hi").status == "completed"
        # Refused and ended turns do not count.
        with pytest.raises(openai.BadRequestError):
            client.responses.create(model="tools", input=" ")
        running.append(start())
        for response_id in running[1:]:
            client.responses.cancel(response_id)


def test_nothing_that_people_say_is_in_the_log(served: Served) -> None:
    gateway = served.stack.gateway
    assert gateway is not None
    with served.openai() as client, served.http() as http:
        client.responses.create(model="slow", input=SECRET, stream=True, user=SECRET)
        client.responses.create(model="tools", input=SECRET, metadata={"k": SECRET})
        with pytest.raises(openai.BadRequestError):
            client.responses.create(
                model="tools", input=SECRET, instructions=SECRET, extra_body={"truncation": SECRET}
            )
        http.get(f"/conversations/{SECRET}/messages")
        http.post("/v1/responses", content=f'{{"input": "{SECRET}'.encode())
    log = gateway.log.read_text()
    assert "route=/v1/responses" in log
    assert "tenant=acme" in log
    for secret in (SECRET, served.acme, "Traceback"):
        assert secret not in log


def test_without_redis(tmp_path: object, redis_url: str) -> None:
    port, nowhere = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "gateway"],
        env={
            **os.environ,
            "AGENTAPI_REDIS_URL": f"redis://:hunter2@127.0.0.1:{nowhere}/0",
            "AGENTAPI_REDIS_TIMEOUT": "1",
            "AGENTAPI_GATEWAY_PORT": str(port),
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT) as http:

            def answers() -> bool:
                try:
                    return http.get("/healthz").status_code == 200
                except httpx2.ConnectError:
                    return False

            until(answers)
            ready = http.get("/readyz")
            assert (ready.status_code, ready.json()["redis"]) == (503, "out of reach")
            assert ready.json()["broker"] == "out of reach"
            away = http.get("/v1/models")
            assert (away.status_code, away.json()["error"]["code"]) == (503, "store_unavailable")
            assert away.headers["retry-after"] == "1"
            assert "hunter2" not in away.text
    finally:
        process.terminate()
        _, log = process.communicate(timeout=150)
    assert process.returncode == 0
    assert "hunter2" not in log
    assert "Traceback" not in log


def test_requests_that_wait_or_stream_leave_room_for_others(served: Served, tmp_path: Path) -> None:
    """There are more of them than requests of a tenant that are worked on at the same time."""
    gate = Gate(tmp_path / "gate")
    asked = {"model": "tools", "input": gate.message}
    with ExitStack() as held:
        clients = [held.enter_context(served.http()) for _ in range(2 * ACTIVE_REQUESTS + 3)]
        light, *others = clients
        for client in others[: ACTIVE_REQUESTS + 1]:
            body = {**asked, "stream": True}
            stream = held.enter_context(client.stream("POST", "/v1/responses", json=body))
            assert next(stream.iter_lines()) == "event: response.created"
        pool = held.enter_context(ThreadPoolExecutor(ACTIVE_REQUESTS + 1))
        waits = [
            pool.submit(client.post, "/v1/responses", json=asked)
            for client in others[ACTIVE_REQUESTS + 1 :]
        ]
        for _ in range(100):
            assert light.get("/v1/models").status_code == 200
            time.sleep(0.01)
        assert not any(wait.done() for wait in waits)
        gate.open()
        assert {wait.result().json()["status"] for wait in waits} == {"completed"}
