"""What was decided when a turn was accepted holds for every worker that continues it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import openai

from orchestrator import Orchestrator, TurnHandle
from orchestrator.gateway.ids import turn_id_of
from orchestrator.stack import Stack
from tests.faults import kill, until
from tests.gate import Gate

REFUSED = '{"instructions": "refuse", "sampling": "refuse"}'


def has_ended(handle: TurnHandle) -> bool:
    return handle.info().status.ended


def test_a_takeover_by_a_worker_with_another_policy(
    stack_for: Callable[..., Stack], tmp_path: Path
) -> None:
    stack = stack_for(
        agents=("tests.acceptance.agents", "tests.gateway.agents"),
        heartbeat=0.5,
        dispatch_grace=1,
    )
    gate = Gate(tmp_path / "gate")
    with (
        openai.OpenAI(base_url=f"{stack.gateway_url}/v1", api_key="-", timeout=150) as client,
        Orchestrator(stack.settings) as orchestrator,
    ):
        made = client.responses.create(
            model="open",
            input=gate.message,
            instructions="Answer in French.",
            temperature=0.3,
            background=True,
        )
        handle = orchestrator.turn(turn_id_of(made.id))
        until(lambda: handle.info().steps == 1)
        [first] = stack.workers
        stack._overrides["request_policy"] = REFUSED
        kill(stack, first)
        stack.start_worker()
        gate.open()
        until(lambda: handle.info().status.ended, what="the other worker ends it")
        assert handle.info().attempt == 2
        ended = client.responses.retrieve(made.id)
        assert ended.status == "completed", ended.error
        seen = json.loads(ended.output_text)
        assert seen["prompt"] == "You sell shoes.\n\nAnswer in French."
        assert seen["sampling"] == {"temperature": 0.3}
        assert (ended.instructions, ended.temperature) == ("Answer in French.", 0.3)


def test_a_worker_decides_what_no_gateway_could(stack_for: Callable[..., Stack]) -> None:
    stack = stack_for(agents=("tests.acceptance.agents", "tests.gateway.agents"), workers=0)
    with (
        openai.OpenAI(base_url=f"{stack.gateway_url}/v1", api_key="-", timeout=150) as client,
        Orchestrator(stack.settings) as orchestrator,
    ):
        ids = [
            client.responses.create(
                model=model, input="hi", instructions="Answer in French.", background=True
            ).id
            for model in ("open", "deaf", "closed")
        ]
        stack.start_worker()
        ended = []
        for response_id in ids:
            handle = orchestrator.turn(turn_id_of(response_id))
            until(partial(has_ended, handle))
            ended.append(client.responses.retrieve(response_id))
    opened, deaf, closed = ended
    assert json.loads(opened.output_text)["prompt"] == "You sell shoes.\n\nAnswer in French."
    assert json.loads(deaf.output_text)["prompt"] == "You sell shoes."
    assert closed.status == "failed"
    assert closed.error is not None
    assert closed.error.message.startswith("request_refused: agent 'closed' does not let requests")
