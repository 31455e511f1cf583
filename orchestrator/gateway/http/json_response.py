"""JSON responses, encoded fast: a large one must not block the event loop for long."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi.responses import JSONResponse


class OrjsonResponse(JSONResponse):
    """A JSON response, encoded by orjson."""

    def render(self, content: Any) -> bytes:
        """Encode the content."""
        return orjson.dumps(content)
