"""The size of a model, as settings and the table of models give it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ModelSize(BaseModel):
    """How large a request to a model may be, in tokens.

    Attributes:
        context: Request and reply together.
        output: The reply alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    context: int = Field(ge=1)
    output: int = Field(default=4_096, ge=1)

    def room(self, reply: int | None) -> int:
        """Tokens for the request; the rest of the context is for the reply.

        Args:
            reply: How many tokens the request allows for the reply; None if it does not say.
        """
        if reply is None or reply > self.output:
            reply = self.output
        # Some models may write as much as their whole context holds.
        return self.context - min(reply, self.context // 2)
