"""A support desk: a refund that a colleague approves, and a conversation that is handed over.

Start `make up` first. You may restart the workers while the turn waits for the approval.
"""

from __future__ import annotations

import time

from orchestrator import Orchestrator


def main() -> None:
    with Orchestrator() as orchestrator:
        turn = orchestrator.enqueue("support", '/refund {"order_id": "7", "amount": 80}')
        while not (pending := turn.pending()):
            time.sleep(0.1)
        for call in pending:
            print(f"{call.agent} wants {call.tool} with {dict(call.arguments)}")
            turn.approve(call.call_id, by="a colleague")
        print(turn.result(timeout=60).text)

        first = orchestrator.enqueue("support", "/transfer_to_billing", conversation_id="desk:1")
        print("answered by", first.result(timeout=60).agent)
        second = orchestrator.enqueue("support", "Is my invoice right?", conversation_id="desk:1")
        print("answered by", second.result(timeout=60).agent)


if __name__ == "__main__":
    main()
