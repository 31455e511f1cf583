"""Five agents on as many workers as there are: side by side, one after the other, and by tools.

Run it while `make up` runs.
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

        # An agent that decides by itself whom to ask.
        topics = json.dumps({"topics": ["queues", "leases", "journals"]})
        written = orchestrator.enqueue("editor", f"/look_into {topics}")
        print("delegated:", written.result(timeout=60).text)


if __name__ == "__main__":
    main()
