"""A conversation longer than its window: the beginning is summarised, the transcript is kept.

Everything runs in this process, without a server. Workers do the same in the background.
"""

from __future__ import annotations

import os

from agentapi import Agent, Compaction
from orchestrator import Orchestrator

PROVIDER = os.environ.get("AGENTAPI_EXAMPLE_PROVIDER", "offline")

companion = Agent(
    name="companion",
    system_prompt="You listen.",
    provider=PROVIDER,
    window=20,
    compact=Compaction(keep=6, after=6),
)


def main() -> None:
    with Orchestrator.eager([companion]) as orchestrator:
        for day in range(1, 16):
            turn = orchestrator.enqueue("companion", f"This is day {day}.", conversation_id="diary")
            turn.result()
        summary = orchestrator.store.summary("diary")
        print(f"{summary.total} messages, {summary.covered} of them in the summary")
        print(f"{len(orchestrator.history('diary'))} messages in the transcript")


if __name__ == "__main__":
    main()
