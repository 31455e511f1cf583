"""A producer process: reads commands as JSON lines, and answers with measured values."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol


class Producer(Protocol):
    """What each contender's producer implements."""

    def enqueue(self, conversations: Sequence[str]) -> None:
        """Enqueue a turn for each conversation, one call after the other."""
        ...

    def ask(self, conversation: str) -> None:
        """Enqueue one turn, and wait for its reply in the contender's own way."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def serve(producer: Producer) -> None:
    """Carry out commands until the input ends.

    A command is ``{"do": "enqueue" | "ask", "conversations": [...]}``. The answer to ``enqueue``
    has the seconds of wall clock and of processor time; the answer to ``ask`` has the seconds of
    each turn.
    """
    # The contenders' libraries may print to stdout, so the answers use a separate channel.
    answers, sys.stdout = sys.stdout, sys.stderr
    try:
        for line in sys.stdin:
            command = json.loads(line)
            print(json.dumps(_carry_out(producer, command)), file=answers, flush=True)
    finally:
        producer.close()


def _carry_out(producer: Producer, command: dict[str, Any]) -> dict[str, Any]:
    conversations: list[str] = command["conversations"]
    if command["do"] == "ask":
        return {"seconds": [_timed(producer, conversation) for conversation in conversations]}
    began, cpu = time.perf_counter(), time.process_time()
    producer.enqueue(conversations)
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def _timed(producer: Producer, conversation: str) -> float:
    began = time.perf_counter()
    producer.ask(conversation)
    return time.perf_counter() - began
