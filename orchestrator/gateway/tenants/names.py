"""The names of a tenant's conversations: public ones in the API, internal ones in Redis."""

from __future__ import annotations

import re
from typing import Final

PREFIX: Final = "gw"

TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A valid tenant name."""

_INTERNAL: Final = re.compile(rf"\b{PREFIX}:{TENANT.pattern}:")


def internal_id(tenant: str, public: str) -> str:
    """The id in Redis of a tenant's conversation."""
    return f"{PREFIX}:{tenant}:{public}"


def public_id(tenant: str, internal: str) -> str | None:
    """The id in the API of a conversation in Redis; None if it is not this tenant's."""
    prefix = internal_id(tenant, "")
    return internal.removeprefix(prefix) if internal.startswith(prefix) else None


def has_internal_id(text: str) -> bool:
    """Whether a text names a conversation by its id in Redis, of whatever tenant."""
    return _INTERNAL.search(text) is not None
