"""The load that a fleet is planned for."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Load(BaseModel):
    """The load in the busiest hour."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    turns_per_second: float = Field(gt=0)
    """Turns that arrive per second in the busiest hour."""
    average: float = Field(default=0.4, gt=0, le=1)
    """The average rate of turns, as a share of the rate in the busiest hour."""
    model_seconds: float = Field(default=3.0, ge=0)
    """Duration of one model call, in seconds."""
    model_calls: float = Field(default=1.5, ge=1)
    """Model calls of one turn. Each but the last is followed by a tool call."""
    tool_seconds: float = Field(default=0.5, ge=0)
    """Duration of one tool call, in seconds."""
    message_bytes: int = Field(default=500, ge=1)
    """Size of one message as JSON, in bytes."""
    conversations: int = Field(default=100_000, ge=1)
    """Conversations that are kept."""
    messages_kept: int = Field(default=40, ge=0)
    """Messages that a conversation keeps on average."""
    archived: float = Field(default=0.0, ge=0, le=1)
    """Share of the conversations that are idle and in the archive."""
    streamed: float = Field(default=0.0, ge=0, le=1)
    """Share of turns that stream their reply."""
    pieces: int = Field(default=200, ge=0)
    """Pieces of text of a streamed reply."""
    through_gateway: float = Field(default=1.0, ge=0, le=1)
    """Share of turns that come through the gateway."""

    @property
    def tool_calls(self) -> float:
        """Tool calls of one turn."""
        return self.model_calls - 1

    @property
    def turn_seconds(self) -> float:
        """Seconds that models and tools take for one turn."""
        return self.model_calls * self.model_seconds + self.tool_calls * self.tool_seconds

    @property
    def in_flight(self) -> float:
        """Turns that are running at any moment (Little's law)."""
        return self.turns_per_second * self.turn_seconds

    @property
    def messages(self) -> float:
        """Messages that one turn adds."""
        return 2 * self.model_calls
