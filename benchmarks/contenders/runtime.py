"""This runtime's producer. Its workers are started the way users start them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from agentapi import load_settings
from benchmarks.contenders import turn
from benchmarks.contenders.producer import serve
from orchestrator import Orchestrator

STREAM = os.environ.get("BENCH_STREAM") == "1"
AGENT = "plain"


class RuntimeProducer:
    """Enqueues turns, with one call each."""

    def __init__(self) -> None:
        self._orchestrator = Orchestrator(
            load_settings(redis_url=turn.REDIS_URL, broker_url=turn.REDIS_URL)
        )

    def enqueue(self, conversations: Sequence[str]) -> None:
        """See `Producer.enqueue`."""
        for conversation in conversations:
            self._orchestrator.enqueue(
                AGENT, turn.TEXT, conversation_id=conversation, stream=STREAM
            )

    def ask(self, conversation: str) -> None:
        """See `Producer.ask`."""
        self._orchestrator.enqueue(
            AGENT, turn.TEXT, conversation_id=conversation, stream=STREAM
        ).result(timeout=60)

    def close(self) -> None:
        """See `Producer.close`."""
        self._orchestrator.close()


if __name__ == "__main__":
    serve(RuntimeProducer())
