"""The demo: a whole stack, overlapping conversations, and a check of every history."""

from orchestrator.demo.run import run_demo

__all__ = ["run_demo"]
