"""How the OpenAPI document describes errors and streams, the same for every route."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel


class ErrorObject(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error response."""

    error: ErrorObject


_MEANING: Final = {
    400: "The request is not valid; `param` names the parameter at fault.",
    401: "The key is missing or not valid.",
    403: "The key lacks the scope `turns`; or no keys exist, and the request came from a web page "
    "or through a proxy.",
    404: "The object does not exist, or belongs to another tenant.",
    409: "The state of the conversation or turn does not allow it.",
    408: "The body arrived too slowly.",
    410: "It has expired.",
    413: "The body is too large.",
    421: "No keys exist, and the request was not addressed to this machine.",
    422: "The `Idempotency-Key` was already used for a different request.",
    429: "A limit of the tenant is exhausted; `retry-after` says when to try again.",
    500: "The gateway or the turn failed.",
    502: "The model provider refused the turn.",
    503: "Redis or the broker is out of reach, or the gateway is shutting down.",
    504: "The turn took too long.",
}

ALWAYS: Final = (400, 401, 403, 408, 413, 421, 429, 500, 503)
"""Error statuses of every route that needs a key."""

SSE: Final[dict[str, Any]] = {
    "description": "Server-sent events.",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "properties": {
                    "event": {"type": "string"},
                    "data": {"type": "string", "description": "JSON."},
                    "id": {
                        "type": "string",
                        "description": "Native routes only: the event to resume after.",
                    },
                },
            }
        }
    },
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe error statuses."""
    return {status: {"model": ErrorBody, "description": _MEANING[status]} for status in statuses}
