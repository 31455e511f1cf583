"""What the holder of a key may do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from agentapi.errors import InvalidInput


class Scope(StrEnum):
    """One thing that a key allows.

    Attributes:
        TURNS: OpenAI's API and the native one, for the key's tenant.
        READ: The console: which turns and conversations there are, and how they are doing.
        CONTENT: The console with what people, models and tools said. Includes `READ`.
        OPERATE: The console for all tenants, with everything that changes turns: cancel, retry,
            approve, send messages. Includes `READ`, but not `CONTENT`.
    """

    TURNS = "turns"
    READ = "read"
    CONTENT = "content"
    OPERATE = "operate"


DEFAULT: Final = frozenset({Scope.TURNS})
"""The scopes of a key that was created without scopes, for example by an earlier release."""

CONSOLE: Final = frozenset({Scope.READ, Scope.CONTENT, Scope.OPERATE})
"""Scopes that open the console."""


def scopes_of(names: Iterable[str]) -> frozenset[Scope]:
    """Scopes by their names; the default ones if there are none.

    Raises:
        InvalidInput: A name is unknown.
    """
    given = list(names)
    known = {scope.value: scope for scope in Scope}
    for name in given:
        if name not in known:
            raise InvalidInput(f"there is no scope {name!r}: expected {', '.join(known)}")
    return frozenset(known[name] for name in given) or DEFAULT


def allowed_by(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The scopes with those that they include."""
    found = frozenset(scopes)
    return found | {Scope.READ} if found & CONSOLE else found


def listed(scopes: Iterable[Scope]) -> list[str]:
    """The names of scopes in a fixed order."""
    found = set(scopes)
    return [scope.value for scope in Scope if scope in found]
