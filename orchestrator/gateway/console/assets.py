"""Files that the pages use: a style sheet, and scripts. All are in the package.

htmx is the published file of npm's package ``htmx.org``, whose version is in the file's name; its
licence is beside it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from starlette.responses import Response

from orchestrator.gateway.console.routing import console_router, public
from orchestrator.gateway.console.security import HEADERS, ROOT
from orchestrator.gateway.http.errors import NotFound

router = console_router()

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asset:
    """A file.

    Attributes:
        body: Its bytes.
        media_type: Its type.
        digest: Changes with the bytes.
    """

    body: bytes
    media_type: str
    digest: str


@cache
def _assets() -> dict[str, Asset]:
    found = {}
    for file in files("orchestrator.gateway.console").joinpath("static").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            body = file.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:16]
            found[file.name] = Asset(body=body, media_type=_TYPES[suffix], digest=digest)
    return found


def address_of(name: str) -> str:
    """The address of a file. It changes with the file, so that browsers can cache it."""
    return f"{ROOT}/static/{name}?v={_assets()[name].digest}"


@router.get("/static/{name}")
@public
async def static_file(name: str) -> Response:
    """Serve a file of the package."""
    asset = _assets().get(name)
    if asset is None:
        raise NotFound(f"there is no file {name!r}")
    kept = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(asset.body, media_type=asset.media_type, headers={**HEADERS, **kept})
