"""See `agentapi.logs`."""

from agentapi.logs import configure_logging as configure_logging
from agentapi.logs import line as line
