"""A message that a page shows once at its top, about the form that was just posted."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Literal

import orjson

COOKIE: Final = "agentapi-console-said"

_MAX_TEXT: Final = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Flash:
    """One message.

    Attributes:
        text: The text, without users' messages, because it is stored in a cookie.
        kind: Whether the action succeeded or failed.
    """

    text: str
    kind: Literal["done", "failed"] = "done"

    def to_cookie(self) -> str:
        """The message as the value of a cookie."""
        data = orjson.dumps([self.kind, self.text[:_MAX_TEXT]])
        return base64.urlsafe_b64encode(data).decode()


def flash_from(cookie: str | None) -> Flash | None:
    """The message in a cookie; None if there is none, or it cannot be read."""
    if not cookie:
        return None
    try:
        kind, text = orjson.loads(base64.urlsafe_b64decode(cookie))
    except (ValueError, TypeError, binascii.Error):
        return None
    if not isinstance(text, str):
        return None
    return Flash(kind="failed" if kind == "failed" else "done", text=text[:_MAX_TEXT])
