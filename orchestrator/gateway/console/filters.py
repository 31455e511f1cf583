"""Filters of lists in the page's address, so that a list can be bookmarked and shared."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from agentapi.decoding.shown import shown
from agentapi.stores import ConversationQuery, TurnQuery
from agentapi.turns import TurnStatus
from orchestrator.gateway.http.errors import InvalidRequest

OPEN: Final = frozenset({TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.PARKED})

_STATUSES: Final = {status.value: status for status in TurnStatus}

_AGO: Final = re.compile(r"(\d{1,6}(?:\.\d+)?)\s*([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def moment(name: str, text: str | None) -> float | None:
    """A point in time, in seconds since 1970; None if it is not given.

    Args:
        name: The filter, for errors.
        text: How long ago, such as ``30m``, ``2h`` or ``7d``; or a date or time in ISO 8601, in UTC
            if it has no time zone; or seconds since 1970.

    Raises:
        InvalidRequest: It is none of these.
    """
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return time.time() - float(ago[1]) * _SECONDS[ago[2]]
    try:
        if text.replace(".", "", 1).isdigit() and len(text) > 8:
            return min(float(text), 1e11)
        then = datetime.fromisoformat(text.removesuffix(" UTC"))
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{name} is {shown(text)}: expected how long ago, such as 30m, 2h or 7d, or a time in "
            "UTC such as 2026-01-31 12:00",
            param=name,
        ) from None


def _given(value: Any) -> Any:
    """Treat an empty form field as no filter."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, list):
        return [each for each in value if each]
    return value


Text = Annotated[Annotated[str, Field(max_length=600)] | None, BeforeValidator(_given)]


class Filters(BaseModel):
    """Filters that turns and conversations have in common."""

    model_config = ConfigDict(extra="ignore")

    agent: Text = None
    user: Text = None
    tenant: Text = None
    since: Text = None
    until: Text = None
    cursor: Text = None
    id: Text = None

    def address(self, path: str, **changes: Any) -> str:
        """The address of a list with these filters.

        Args:
            path: The page's path.
            changes: Values that differ.
        """
        return address(path, {**self.model_dump(exclude={"id"}), **changes})


class TurnFilters(Filters):
    """Filters of turns."""

    status: Annotated[list[str], BeforeValidator(_given), Field(max_length=10)] = []
    conversation: Text = None
    error_code: Text = None
    error: Text = None

    def query(self) -> TurnQuery:
        """The turns as the store takes them.

        Raises:
            InvalidRequest: A status or a time is not valid.
        """
        return TurnQuery(
            statuses=self._statuses(),
            agent=self.agent,
            user_id=self.user,
            tenant_id=self.tenant,
            conversation_id=self.conversation,
            error_code=self.error_code,
            error=self.error,
            since=moment("since", self.since),
            until=moment("until", self.until),
        )

    def _statuses(self) -> frozenset[TurnStatus]:
        found: set[TurnStatus] = set()
        for name in self.status:
            if name == "open":
                found |= OPEN
            elif name in _STATUSES:
                found.add(_STATUSES[name])
            else:
                known = ", ".join(TurnStatus)
                raise InvalidRequest(
                    f"status is {shown(name)}: expected open, {known}", param="status"
                )
        return frozenset(found or TurnStatus)


class ConversationFilters(Filters):
    """Filters of conversations."""

    busy: Text = None
    active: Text = None
    idle: Text = None

    def query(self) -> ConversationQuery:
        """The conversations as the store takes them.

        Raises:
            InvalidRequest: A time is not valid.
        """
        return ConversationQuery(
            agent=self.agent,
            user_id=self.user,
            tenant_id=self.tenant,
            busy={"yes": True, "no": False}.get(self.busy or ""),
            since=moment("since", self.since),
            until=moment("until", self.until),
            active_since=moment("active", self.active),
            idle_since=moment("idle", self.idle),
        )


def address(path: str, parameters: Mapping[str, Any]) -> str:
    """A path with the parameters that have a value."""
    given = {name: value for name, value in parameters.items() if value}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path
