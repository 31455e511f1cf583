"""One mapping from errors to HTTP statuses and OpenAI's error object."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from agentapi.decoding.plain import cut
from agentapi.errors import (
    AgentAPIError,
    CallNotPending,
    ConfigurationError,
    ConversationBusy,
    InvalidInput,
    ServerUnavailable,
    TenantMismatch,
    TurnFailed,
    TurnNotForkable,
    TurnNotFound,
    TurnNotRetryable,
    TurnTimeout,
    TurnVetoed,
    UnknownAgent,
)
from agentapi.logs import line
from agentapi.turns import Turn
from orchestrator.gateway.http.wording import for_clients
from orchestrator.gateway.tenants.names import has_internal_id, public_id

log = logging.getLogger("agentapi.gateway")

LONGEST_MESSAGE: Final = 2_000
LONGEST_PARAM: Final = 200
"""Maximum bytes of an error: it may quote what the client sent."""

_INVALID = "invalid_request_error"
_SERVER = "server_error"


class GatewayError(AgentAPIError):
    """An error that only the gateway raises.

    Attributes:
        status: The HTTP status.
        kind: `type` of OpenAI's error object.
        param: The parameter at fault, or None.
        retry: Whether OpenAI's clients should repeat the request; None leaves it to them.
        retry_after: Seconds to wait before a repeat.
    """

    status: ClassVar[int] = 400
    kind: ClassVar[str] = _INVALID

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry: bool | None = None,
        retry_after: float | None = None,
        conversation_id: str | None = None,
    ) -> None:
        super().__init__(message, conversation_id=conversation_id)
        self.param = param
        self.shown_code = code or self.code
        self.retry = retry
        self.retry_after = retry_after


class InvalidRequest(GatewayError, ValueError):
    """A parameter is not valid. As a ValueError it passes through pydantic's validators."""

    code = "invalid_value"


class UnsupportedParameter(InvalidRequest):
    """A parameter of OpenAI's API that agents do not support."""

    code = "unsupported_parameter"


class NotAuthenticated(GatewayError):
    """The key is missing or not valid."""

    status = 401
    code = "invalid_api_key"


class Forbidden(GatewayError):
    """There are no keys, and the request came from a web page or through a proxy."""

    status = 403
    code = "forbidden"


class Misdirected(GatewayError):
    """There are no keys, and the request is not for a name of this machine."""

    status = 421
    code = "host_not_allowed"


class NotFound(GatewayError):
    """The object does not exist, or belongs to another tenant."""

    status = 404
    code = "not_found"


class Conflict(GatewayError):
    """The state of the object does not allow it now."""

    status = 409
    code = "conflict"


def too_late(turn: Turn) -> Conflict:
    """The error of a cancellation after the turn ended, or asked its client."""
    how = turn.status.value if turn.status.ended else "complete: it waits for its client"
    return Conflict(
        f"the cancellation came too late: turn {turn.turn_id} is {how}; GET it for its result",
        code="cancelled_too_late",
        retry=False,
    )


class KeyReused(GatewayError):
    """The idempotency key was already used for a different request."""

    status = 422
    code = "idempotency_key_reused"


class Gone(GatewayError):
    """It has expired."""

    status = 410
    code = "gone"


class TooSlow(GatewayError):
    """The request's body did not arrive in time."""

    status = 408
    code = "request_timeout"


class TooLarge(GatewayError):
    """The request's body is larger than the limit."""

    status = 413
    code = "request_too_large"


class RateLimited(GatewayError):
    """A limit of the tenant is exhausted."""

    status = 429
    kind = "rate_limit_error"
    code = "rate_limit_exceeded"


class Stopping(GatewayError):
    """This gateway is shutting down."""

    status = 503
    kind = _SERVER
    code = "gateway_stopping"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """An error as a client sees it."""

    status: int
    kind: str
    code: str | None
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        error = {
            "message": cut(self.message, LONGEST_MESSAGE),
            "type": self.kind,
            "param": None if self.param is None else cut(self.param, LONGEST_PARAM),
            "code": self.code,
        }
        return {"error": error}


_TURN_FAILURES: Final[Mapping[str, tuple[int, str]]] = {
    "unknown_agent": (404, _INVALID),
    "invalid_input": (400, _INVALID),
    "request_refused": (400, _INVALID),
    "client_tool_refused": (400, _INVALID),
    "invalid_message": (400, _INVALID),
    "cancelled": (409, _INVALID),
    "deadline": (504, _SERVER),
    "provider_unavailable": (503, _SERVER),
    "store_unavailable": (503, _SERVER),
    "provider": (502, _SERVER),
    "provider_rejected": (502, _SERVER),
    "incomplete_reply": (502, _SERVER),
    "invalid_output": (502, _SERVER),
    "attachment_refused": (400, _INVALID),
    "context_too_long": (400, _INVALID),
}
"""HTTP status and error type for the error code of a turn that failed while a request waited for
it. All other codes return 500."""


def failure_status(code: str) -> tuple[int, str]:
    """Status and type of OpenAI's error object for a turn that failed with an error code."""
    return _TURN_FAILURES.get(code, (500, _SERVER))


def problem_of(error: Exception, tenant: str | None = None) -> Problem:
    """Convert an error for clients. Errors that are not ours are hidden.

    Args:
        error: The error.
        tenant: The tenant, if known: the problem then names the tenant's conversation.
    """
    problem = _problem_of(error)
    if not isinstance(error, AgentAPIError):
        return problem
    text, code = error.without_ids(), problem.code
    # The gateway's own errors are written for its clients.
    message = (
        _without_ids(text, code) if isinstance(error, GatewayError) else public_text(text, code)
    )
    public = public_id(tenant, error.conversation_id or "") if tenant is not None else None
    if public is not None:
        message = f"{message} (conversation_id={public!r})"
    return replace(problem, message=message)


def public_text(text: str, code: str | None) -> str:
    """An error's text as clients may see it: without advice that only operators can follow.

    Errors name conversations in `conversation_id`, not in their text. If a text, such as a hook's
    veto, still contains an internal id, the gateway withholds it.

    Args:
        text: The error's text.
        code: The error's code.
    """
    # The text of a hook's veto is meant for the caller.
    shown = text if code == TurnVetoed.code else for_clients(text)
    return _without_ids(shown or str(code), code)


def _without_ids(text: str, code: str | None) -> str:
    if not has_internal_id(text):
        return text
    log.error(line("error.withheld", code=code))
    return f"{code}: the reason names an internal id, so the gateway does not show it"


def _problem_of(error: Exception) -> Problem:
    match error:
        case GatewayError():
            return Problem(
                status=error.status,
                kind=error.kind,
                code=error.shown_code,
                message=str(error),
                param=error.param,
                headers=_retry_headers(error.retry, error.retry_after),
            )
        case TurnFailed():
            status, kind = failure_status(error.error_code)
            # The turn has run, so a repeated request would run it twice.
            headers = _retry_headers(False, None)
            return _plain(error, status, kind, headers, code=error.error_code)
        case UnknownAgent():
            return Problem(
                status=404,
                kind=_INVALID,
                code="model_not_found",
                message=str(error),
                param="model",
            )
        case InvalidInput():
            return _plain(error, 400, _INVALID)
        case TurnNotFound() | TenantMismatch():
            return _plain(error, 404, _INVALID, code="not_found")
        # OpenAI's clients retry a 409 automatically, which would not help here.
        case ConversationBusy() | CallNotPending() | TurnNotForkable() | TurnNotRetryable():
            return _plain(error, 409, _INVALID, _retry_headers(False, None))
        case TurnTimeout():
            return _plain(error, 504, _SERVER, _retry_headers(False, None))
        case ServerUnavailable():
            # A retry is useful here but safe only with an idempotency key, so the client decides.
            return _plain(error, 503, _SERVER, _retry_headers(None, 1))
        case ConfigurationError() | AgentAPIError():
            return _plain(error, 500, _SERVER)
        case _:
            return Problem(
                status=500,
                kind=_SERVER,
                code="internal",
                message="internal error of the gateway; find the cause in its log by this "
                "response's request id",
            )


def _plain(
    error: AgentAPIError,
    status: int,
    kind: str,
    headers: Mapping[str, str] | None = None,
    code: str | None = None,
) -> Problem:
    return Problem(
        status=status,
        kind=kind,
        code=code or error.code,
        message=str(error),
        headers=headers or {},
    )


def _retry_headers(retry: bool | None, after: float | None) -> dict[str, str]:
    headers: dict[str, str] = {}
    if retry is not None:
        headers["x-should-retry"] = "true" if retry else "false"
    if after is not None:
        # Whole seconds, rounded up, because a client that repeats too early is refused again.
        headers["retry-after"] = str(max(1, -int(-after // 1)))
        headers["retry-after-ms"] = str(max(1, round(after * 1000)))
    return headers
