"""A user's data in the native API."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.gateway.dependencies import View
from orchestrator.gateway.http.request_body import StrictRoute

router = APIRouter(tags=["native"], route_class=StrictRoute)

_WAIT: Final = 2.0
"""Maximum seconds to wait for running turns: the request occupies a thread."""


class ForgetUser(BaseModel):
    """The user whose data to delete."""

    model_config = ConfigDict(extra="forbid")

    user: Annotated[str, Field(min_length=1, description="The user's id.")]
    dry_run: Annotated[bool, Field(description="Change nothing; only count.")] = False


class Forgotten(BaseModel):
    """What was deleted, or would be deleted after a dry run."""

    conversations: Annotated[int, Field(description="Conversations that the user began.")]
    turns: int
    messages: int
    left: Annotated[
        list[str],
        Field(description="Turns that are cancelled but still running: repeat the request."),
    ]
    dry_run: bool


# The id is not in the path: it may be an address, and paths are in logs.
@router.post("/users/forget")
async def forget_user(body: ForgetUser, view: View) -> Forgotten:
    """Delete all data of one of the tenant's users: conversations, turns, events, images and files.

    Conversations that the user began are deleted as a whole. In other users' conversations, the
    user's turns and their messages are deleted. Unfinished turns are cancelled. The call can be
    repeated.
    """
    found = await view.forget_user(body.user, dry_run=body.dry_run, timeout=_WAIT)
    return Forgotten(
        conversations=found.conversations,
        turns=found.turns,
        messages=found.messages,
        left=list(found.left),
        dry_run=found.dry_run,
    )
