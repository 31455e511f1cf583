"""What the OpenAPI document says of answers, the same on every route."""

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
    """The body of every answer that is an error."""

    error: ErrorObject


_MEANING: Final = {
    400: "The request is not acceptable; `param` names what.",
    401: "No key, or one that is not valid.",
    403: "There are no keys, and the request came from a web page or through a proxy.",
    404: "There is no such thing, or it is another tenant's.",
    409: "The state of the conversation or turn forbids it now.",
    408: "The body came too slowly.",
    410: "It is kept no longer.",
    413: "The body is too large.",
    421: "There are no keys, and the request was not to a name of this machine.",
    422: "The `Idempotency-Key` named another request before.",
    429: "A limit of the tenant is used up; `retry-after` says when to come again.",
    500: "The gateway or the turn failed.",
    502: "The turn's model provider refused.",
    503: "Redis or the broker is out of reach, or the gateway is shutting down.",
    504: "The turn took too long.",
}

ALWAYS: Final = (400, 401, 403, 408, 413, 421, 429, 500, 503)
"""Statuses that any route with a key may answer with."""

SSE: Final[dict[str, Any]] = {
    "description": "Server-sent events.",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "properties": {
                    "event": {"type": "string"},
                    "data": {"type": "string", "description": "JSON."},
                    "id": {"type": "string", "description": "On native routes: resume from it."},
                },
            }
        }
    },
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Documentation of statuses that are errors."""
    return {status: {"model": ErrorBody, "description": _MEANING[status]} for status in statuses}
