"""The page at `/`, for people who open the server's address in a browser."""

from __future__ import annotations

from html import escape
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from orchestrator.gateway.http.openapi import errors

router = APIRouter(tags=["health"], responses=errors(403, 421, 503))

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>agentapi gateway</title>
<style>:root{{color-scheme:light dark;background:Canvas;color:CanvasText}}
body{{font:16px/1.5 system-ui;max-width:44rem;margin:3rem auto;padding:0 1rem}}
code{{overflow-wrap:anywhere}}pre{{white-space:pre-wrap;overflow-wrap:anywhere}}</style>
<main>
<h1>agentapi gateway {version}</h1>
<p>LLM agents behind OpenAI's API and a native API. This gateway serves:</p> <ul>
<li><code>{base}v1</code>: the <code>base_url</code> for OpenAI's clients. A model is an agent: <a
href="v1/models">/v1/models</a> lists them.</li> <li><code>POST /conversations/ID/turns</code>: the
native API.</li> {console}<li><a href="openapi.json">/openapi.json</a>: every route, as an OpenAPI
document.</li> <li><a href="healthz">/healthz</a> and <a href="readyz">/readyz</a>: whether this
process is alive, and whether it can serve requests.</li> </ul> <pre>curl {base}v1/responses -H
'content-type: application/json' \\
  -d '{{"model": "AGENT", "input": "Hello!"}}'</pre>
<p>Once there are keys, requests need <code>Authorization: Bearer KEY</code>:
create one with <code>agentapi keys create TENANT</code>.</p> </main> </html>
"""

_CONSOLE: Final = """\
<li><a href="console">/console</a>: the fleet, its turns and conversations, in a browser.</li>
"""

_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}


@router.get("/", response_class=HTMLResponse)
async def start_page(request: Request) -> HTMLResponse:
    """A page that describes this server."""
    served = request.app.state.gateway.settings.gateway_console
    page = _PAGE.format(
        version=escape(version("agentapi")),
        base=escape(str(request.base_url)),
        console=_CONSOLE if served else "",
    )
    return HTMLResponse(page, headers=_HEADERS)
