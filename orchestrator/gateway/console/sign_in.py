"""Signing in with a key, and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from orchestrator.gateway.console.authentication import COOKIE, token_of, viewer_of
from orchestrator.gateway.console.pages import go_to, is_https, page
from orchestrator.gateway.console.routing import Form, console_router, public
from orchestrator.gateway.console.security import ROOT, own_address
from orchestrator.gateway.services import Gateway

router = console_router()

_MAX_KEY = 1_000


@router.get("/sign-in")
@public
async def sign_in_page(
    request: Request, next: Annotated[str | None, Query(max_length=4_000)] = None
) -> Response:
    """The form for a key."""
    return page(request, "sign_in.html", next=own_address(next), failed=None)


@router.post("/sign-in")
@public
async def sign_in(request: Request, form: Form) -> Response:
    """Start a session for a key."""
    gateway: Gateway = request.app.state.gateway
    secret, address = form.get("key", "").strip(), own_address(form.get("next"))
    peer = request.client.host if request.client else "-"
    wait = gateway.failed_auth.retry_after(peer)
    # Behind a proxy, someone who guesses keys has the same address as people with a key.
    if wait and not gateway.keys.was_valid(secret):
        failed = f"Too many invalid keys were tried. Try again in {wait:.0f} seconds."
        refused = page(request, "sign_in.html", status=429, next=address, failed=failed)
        refused.headers["retry-after"] = str(max(1, round(wait)))
        return refused
    known = 0 < len(secret) <= _MAX_KEY and secret.isascii()
    key = await gateway.keys.find(secret) if known else None
    if key is None:
        gateway.failed_auth.record_failure(peer)
        failed = "This key is not valid, or has been revoked."
        return page(request, "sign_in.html", status=401, next=address, failed=failed)
    if viewer_of(key.tenant, key.scopes, key.key_id) is None:
        failed = (
            "This key is for the APIs only. Create one for the console with: agentapi keys create "
            f"{key.tenant} --scope read"
        )
        return page(request, "sign_in.html", status=403, next=address, failed=failed)
    # Sign out the browser's previous user, so that no token is used by two people.
    await _end(request)
    token = await gateway.sessions.begin(secret)
    answer = go_to(request, address)
    answer.set_cookie(
        COOKIE,
        token,
        max_age=gateway.sessions.lifetime,
        path=ROOT,
        secure=is_https(request.scope["scheme"], request.headers),
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/sign-out")
@public
async def sign_out(request: Request) -> Response:
    """End the session."""
    await _end(request)
    answer = go_to(request, f"{ROOT}/sign-in")
    answer.delete_cookie(COOKIE, path=ROOT)
    return answer


async def _end(request: Request) -> None:
    gateway: Gateway = request.app.state.gateway
    if token := token_of(request.headers):
        await gateway.sessions.end(token)
