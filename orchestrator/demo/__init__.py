"""The demo: a whole stack, overlapping conversations, and a check that nothing went wrong."""

from orchestrator.demo.run import run_demo

__all__ = ["run_demo"]
