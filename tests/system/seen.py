"""A stack whose console is looked at."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.stack import Stack


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A gateway with workers."""

    stack: Stack

    @property
    def url(self) -> str:
        """The gateway's address."""
        assert self.stack.gateway_url is not None
        return self.stack.gateway_url
