"""Processes on one machine: workers, and a whole stack for development, the demo and tests."""

from orchestrator.stack.processes import Child
from orchestrator.stack.stack import Stack
from orchestrator.stack.valkey import start_valkey

__all__ = ["Child", "Stack", "start_valkey"]
