"""Agents that work together: in parallel, one after the other, and called as tools.

Start `make up` first.
"""

from __future__ import annotations

import json

from orchestrator import Orchestrator


def main() -> None:
    with Orchestrator() as orchestrator:
        facts = orchestrator.gather(
            [("research", "What is Celery?"), ("research", "What is Redis?")]
        )
        for reply in facts.replies(timeout=60):
            print("gathered:", reply)

        report = orchestrator.chain(
            [
                ("research", "What is an agent?"),
                "edit",
                ("summarise", "In one line: {reply}"),
                ("analyse", "What follows from this? {reply}"),
                "plan",
            ]
        )
        print("chained:", report.result(timeout=60).text)

        # An agent that decides which agents to ask.
        topics = json.dumps({"topics": ["queues", "leases", "journals"]})
        written = orchestrator.enqueue("editor", f"/look_into {topics}")
        print("delegated:", written.result(timeout=60).text)


if __name__ == "__main__":
    main()
