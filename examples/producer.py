"""Enqueue a turn and wait for its reply. Start `make up` first."""

from __future__ import annotations

from orchestrator import Orchestrator


def main() -> None:
    with Orchestrator() as orchestrator:
        turn = orchestrator.enqueue("support", "Where is order 7?", conversation_id="user:42")
        print(turn.result(timeout=60).text)


if __name__ == "__main__":
    main()
