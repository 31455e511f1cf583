"""Viewers of the console, and what they may see and do."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.gateway.http.errors import Forbidden, GatewayError
from orchestrator.gateway.tenants.scopes import Scope


class SignInNeeded(GatewayError):
    """The page requires signing in."""

    status = 401
    code = "sign_in_needed"


class ScopeNeeded(Forbidden):
    """The page needs a key with another scope."""

    code = "scope_needed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Viewer:
    """A viewer of the console.

    Attributes:
        tenant: The tenant of their key.
        scopes: What the key allows, with the scopes that are included.
        key_id: The public name of the key; None while there are no keys.
    """

    tenant: str
    scopes: frozenset[Scope]
    key_id: str | None = None

    @property
    def name(self) -> str:
        """The name that is recorded with the viewer's decisions."""
        return self.key_id or self.tenant

    def may(self, *scopes: Scope) -> bool:
        """Whether the key has one of some scopes."""
        return not self.scopes.isdisjoint(scopes)

    def check(self, *scopes: Scope) -> None:
        """Check that the key has one of some scopes.

        Raises:
            ScopeNeeded: It has none of them.
        """
        if not self.may(*scopes):
            wanted = " or ".join(scopes)
            raise ScopeNeeded(
                f"this needs a key with the scope {wanted}: create one with `agentapi keys create "
                f"{self.tenant} --scope {scopes[0]}`"
            )

    @property
    def content(self) -> bool:
        """Whether they may see the text of messages, replies and tool results."""
        return self.may(Scope.CONTENT)

    @property
    def operates(self) -> bool:
        """Whether they see all tenants, and may change turns."""
        return self.may(Scope.OPERATE)
