"""A stack whose console is looked at, with something to see on each page."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from orchestrator import Orchestrator
from orchestrator.stack import Stack
from tests.system.pictures.world import World


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A gateway without keys, and what happened on its fleet.

    Attributes:
        stack: Its processes.
        orchestrator: A producer.
        world: Turns of each kind.
    """

    stack: Stack
    orchestrator: Orchestrator
    world: World

    @property
    def url(self) -> str:
        """The gateway's address."""
        return url_of(self.stack)

    @property
    def pages(self) -> tuple[str, ...]:
        """The addresses from which every page can be reached."""
        world = self.world
        return (
            "/console",
            "/console/turns",
            "/console/turns?status=failed",
            "/console/conversations",
            "/console/approvals",
            conversation_page(world.chat),
            *map(turn_page, (t.turn_id for t in (world.taken_over, world.delegating))),
            *map(turn_page, (t.turn_id for t in (world.asking, world.failed))),
        )


def url_of(stack: Stack) -> str:
    """The address of a stack's gateway."""
    assert stack.gateway_url is not None
    return stack.gateway_url


def turn_page(turn_id: str) -> str:
    """The path of a turn's page."""
    return f"/console/turns/{turn_id}"


def conversation_page(conversation_id: str) -> str:
    """The path of a conversation's page."""
    return f"/console/conversation?id={quote(conversation_id, safe='')}"
