"""Answers with JSON, written fast: a large one must not hold up the event loop."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi.responses import JSONResponse


class JsonAnswer(JSONResponse):
    """An answer with JSON."""

    def render(self, content: Any) -> bytes:
        """See `starlette.responses.JSONResponse`."""
        return orjson.dumps(content)
