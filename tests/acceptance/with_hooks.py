"""An agent whose hook is told of ends, and kills the first worker that calls it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from agentapi import Agent, Hooks, Turn, tool


class Deadly(Hooks):
    """Writes down what it is told."""

    def on_turn_committed(self, turn: Turn, end_id: str) -> None:
        ledger = Path(os.environ["HOOK_LEDGER"])
        with ledger.open("a") as file:
            file.write(f"{turn.status} {end_id}\n")
        if "kill" in turn.input and ledger.read_text().count(end_id) == 1:
            os.kill(os.getpid(), signal.SIGKILL)


@tool(requires_approval=True)
def sign(paper: str) -> str:
    """Sign."""
    return f"signed {paper}"


told = Agent(name="told", provider="offline", tools=[sign], hooks=[Deadly()])
