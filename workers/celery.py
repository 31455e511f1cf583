"""The app that the `celery` command loads; the only module that acts on import."""

from __future__ import annotations

from agentapi import AgentAPIError
from workers.app import create_app

try:
    app = create_app()
except AgentAPIError as error:
    # A traceback would hide the one line that says what to do.
    raise SystemExit(f"agentapi worker cannot start: {error}") from error
