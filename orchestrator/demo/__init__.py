"""The demo: a whole stack, overlapping conversations, and a check of every history."""

from orchestrator.demo.run import run_demo
from orchestrator.demo.showcase import begin_showcase

__all__ = ["begin_showcase", "run_demo"]
