"""Whether Redis or the broker refuses a login."""

from __future__ import annotations

from typing import Final

from redis.exceptions import AuthenticationError, NoPermissionError

from agentapi.errors import LoginRefused
from agentapi.faults import causes_of

_LOGIN: Final = (LoginRefused, AuthenticationError, NoPermissionError)


def login_refused(error: BaseException) -> bool:
    """Whether a server refuses the user or password."""
    causes = list(causes_of(error))
    # RabbitMQ's client is not imported here.
    of_rabbitmq = any(type(cause).__name__ == "AccessRefused" for cause in causes)
    return of_rabbitmq or any(isinstance(cause, _LOGIN) for cause in causes)


def virtual_host_refused(error: BaseException) -> bool:
    """Whether RabbitMQ refuses the virtual host."""
    return any(type(cause).__name__ == "NotAllowed" for cause in causes_of(error))
