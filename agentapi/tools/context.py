"""What a tool can know about the turn that calls it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolContext:
    """Passed to tools that declare a parameter of this type; the model never sees it.

    Attributes:
        conversation_id: The conversation.
        turn_id: The turn.
        call_id: The model's id of this call.
        user_id: The user who started the conversation, if known.
        tenant_id: The tenant the conversation belongs to, if any.
        attempt: 1 for the first worker that runs the turn, 2 after a takeover, and so on.
    """

    conversation_id: str
    turn_id: str
    call_id: str = ""
    user_id: str | None = None
    tenant_id: str | None = None
    attempt: int = 1

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt of this call: pass it to services that accept one."""
        return f"{self.turn_id}:{self.call_id}"
