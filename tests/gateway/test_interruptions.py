"""Workers and gateways die, clients are slow: streams resume, and each event comes once."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from orchestrator import Orchestrator
from orchestrator.stack import Stack
from tests.faults import until
from tests.gate import Gate
from tests.gateway.conftest import TIMEOUT
from tests.gateway.test_native import ended, read_events

WORDS = " ".join(f"word{number}" for number in range(80))
"""The reply to them takes eight seconds, in which a process is killed."""


@pytest.fixture(scope="module")
def stack(stack_for: Callable[..., Stack]) -> Stack:
    return stack_for(heartbeat=0.3, dispatch_grace=1, shutdown_grace=1, workers=2)


def replace_worker(stack: Stack, turn_id: str, http: httpx2.Client) -> None:
    """Kill the worker that runs the turn."""
    with Orchestrator(stack.settings) as orchestrator:
        owner = orchestrator.turn(turn_id).info().worker or ""
    victim = next(worker for worker in stack.workers if owner.startswith(f"{worker.name}@"))
    victim.kill()
    stack.workers.remove(victim)
    stack.start_worker()


def replace_gateway(stack: Stack) -> None:
    """Kill the gateway and start another one at its address."""
    assert stack.gateway is not None
    stack.gateway.kill()
    stack.start_gateway()
    stack.wait_for_gateway()


def turn_id_of(response_id: str) -> str:
    digits = response_id.removeprefix("resp_")
    return f"{digits[:3]}-{digits[3:]}"


def test_the_openai_client_resumes_over_a_dead_worker_and_a_dead_gateway(stack: Stack) -> None:
    client = openai.OpenAI(base_url=f"{stack.gateway_url}/v1", api_key="-", max_retries=0)
    http = httpx2.Client(base_url=stack.gateway_url or "", timeout=TIMEOUT)
    stream: Any = client.responses.create(model="slow", input=WORDS, background=True, stream=True)
    seen: list[Any] = []
    response_id = ""
    killed: list[str] = []
    while True:
        try:
            for event in stream:
                assert event.type != "error", event
                seen.append(event)
                response_id = response_id or event.response.id
                deltas = sum(e.type == "response.output_text.delta" for e in seen)
                if deltas == 5 and "worker" not in killed:
                    killed.append("worker")
                    replace_worker(stack, turn_id_of(response_id), http)
                if deltas == 15 and "gateway" not in killed:
                    killed.append("gateway")
                    replace_gateway(stack)
            break
        except openai.APIConnectionError:
            assert killed == ["worker", "gateway"]
            stream = client.responses.retrieve(
                response_id, stream=True, starting_after=seen[-1].sequence_number
            )
    assert killed == ["worker", "gateway"]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"
    texts: dict[str, str] = {}
    for event in seen:
        if event.type == "response.output_text.delta":
            texts[event.item_id] = texts.get(event.item_id, "") + event.delta
    given_up, whole = texts.values()
    assert whole == f"You said: {WORDS}" == seen[-1].response.output_text
    assert whole.startswith(given_up)
    # The text was produced again, so its first item ended as incomplete.
    done = [e.item.status for e in seen if e.type == "response.output_item.done"]
    assert done == ["incomplete", "completed"]
    again = list(client.responses.retrieve(response_id, stream=True))
    assert [(e.type, e.sequence_number) for e in again] == [
        (e.type, e.sequence_number) for e in seen
    ]
    client.close()
    http.close()


def test_the_native_stream_resumes_over_both(stack: Stack) -> None:
    http = httpx2.Client(base_url=stack.gateway_url or "", timeout=TIMEOUT)
    body = {"agent": "slow", "message": WORDS, "stream": True}
    turn_id = http.post("/conversations/i:1/turns", json=body).json()["turn_id"]
    seen: list[dict[str, Any]] = []
    killed: list[str] = []
    while not seen or seen[-1]["event"] != "completed":
        headers = {"Last-Event-ID": seen[-1]["id"]} if seen else {}
        try:
            with http.stream("GET", f"/turns/{turn_id}/events", headers=headers) as answer:
                assert answer.status_code == 200
                for event in read_events(answer):
                    seen.append(event)
                    deltas = sum(e["event"] == "delta" for e in seen)
                    if deltas == 5 and "worker" not in killed:
                        killed.append("worker")
                        replace_worker(stack, turn_id, http)
                    if deltas == 15 and "gateway" not in killed:
                        killed.append("gateway")
                        replace_gateway(stack)
        except httpx2.TransportError:
            assert killed == ["worker", "gateway"]
    assert [int(event["id"]) for event in seen] == list(range(len(seen)))
    at = [event["event"] for event in seen].index("reset")
    after = "".join(event["data"].get("text", "") for event in seen[at:])
    assert after == f"You said: {WORDS}"
    assert [event["event"] for event in seen].count("started") == 2
    http.close()


def test_a_chat_leaves_out_what_is_produced_again(stack: Stack) -> None:
    client = openai.OpenAI(base_url=f"{stack.gateway_url}/v1", api_key="-", max_retries=0)
    http = httpx2.Client(base_url=stack.gateway_url or "", timeout=TIMEOUT)
    text = ""
    killed = False
    with client.chat.completions.with_streaming_response.create(
        model="slow", messages=[{"role": "user", "content": WORDS}], stream=True
    ) as answer:
        turn_id = turn_id_of(answer.headers["x-response-id"])
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line[6:])["choices"]:
                text += choice["delta"].get("content") or ""
            if text.count("word") == 5 and not killed:
                killed = True
                replace_worker(stack, turn_id, http)
    assert killed
    assert text == f"You said: {WORDS}"
    client.close()
    http.close()


def test_a_gateway_that_is_stopped_says_where_to_resume(stack: Stack, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    body = {"model": "tools", "input": gate.message}
    client = openai.OpenAI(base_url=f"{stack.gateway_url}/v1", api_key="-", max_retries=0)
    http = httpx2.Client(base_url=stack.gateway_url or "", timeout=TIMEOUT)
    gateway = stack.gateway
    assert gateway is not None
    waited: list[httpx2.Response] = []

    def wait() -> None:
        waited.append(http.post("/v1/responses", json=body, headers={"Idempotency-Key": "w"}))

    waiting = threading.Thread(target=wait)
    waiting.start()
    with Orchestrator(stack.settings) as orchestrator:
        until(lambda: list(orchestrator.turns(agent="tools", status="running")), what="the wait")
    seen: list[Any] = []
    for event in client.responses.create(model="slow", input=WORDS, stream=True):
        seen.append(event)
        if sum(e.type == "response.output_text.delta" for e in seen) == 5:
            gateway.signal(signal.SIGTERM)
    gateway.stop()
    assert gateway.exit_code == 0
    waiting.join()
    assert waited[0].status_code == 503
    assert waited[0].json()["error"]["code"] == "gateway_stopping"
    last = seen.pop()
    assert (last.type, last.code) == ("error", "stream_interrupted")
    assert last.sequence_number == seen[-1].sequence_number
    stack.start_gateway()
    stack.wait_for_gateway()
    response_id = seen[0].response.id
    assert f"{response_id}?stream=true&starting_after={last.sequence_number}" in last.message
    seen += client.responses.retrieve(response_id, stream=True, starting_after=last.sequence_number)
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"
    # A repeat with the same key continues the wait for the same turn.
    gate.open()
    again = http.post("/v1/responses", json=body, headers={"Idempotency-Key": "w"})
    assert again.json()["id"] in waited[0].json()["error"]["message"]
    client.close()
    http.close()


def test_a_client_that_takes_nothing_is_dropped_and_resumes(
    stack_for: Callable[..., Stack],
) -> None:
    large = 16_000_000  # more than the socket buffers hold
    stack = stack_for(
        gateway_stall=5, max_message_bytes=2 * large, gateway_max_body_bytes=2 * large
    )
    gateway = stack.gateway
    assert gateway is not None
    with httpx2.Client(base_url=stack.gateway_url or "", timeout=TIMEOUT) as http:
        body = {"agent": "tools", "message": "x" * large, "stream": True}
        turn_id = http.post("/conversations/d:1/turns", json=body).json()["turn_id"]
        ended(http, turn_id)
        with socket.create_connection(("127.0.0.1", urlsplit(stack.gateway_url).port)) as lazy:
            lazy.sendall(
                f"GET /turns/{turn_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            )
            deadline = time.monotonic() + 90
            while "dropped why=stalled" not in gateway.log.read_text():
                assert time.monotonic() < deadline, gateway.tail()
                time.sleep(0.1)
            # Others are served in the meantime, and the events can still be read.
            with http.stream("GET", f"/turns/{turn_id}/events") as answer:
                events = list(read_events(answer))
        assert sum(len(e["data"].get("text", "")) for e in events) == large + len("You said: ")
    assert "Traceback" not in gateway.log.read_text()
