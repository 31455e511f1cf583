"""The app that the `celery` command loads; the only module that acts on import."""

from __future__ import annotations

from agentapi import AgentAPIError
from agentapi.logs import configure_logging
from workers.app import create_app
from workers.refusals import cannot_start

try:
    app = create_app()
except AgentAPIError as error:
    # A traceback would hide the line that says what to do.
    raise cannot_start(str(error)) from error
if app.settings.log_format == "json":
    # Celery warns of some things before it sets logging up.
    configure_logging(app.settings.log_level, app.settings.log_format)
