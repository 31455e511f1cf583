"""What the gateway stores with a turn, inside the turn's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from agentapi.decoding.records import reading, record_of
from agentapi.turns import Turn
from agentapi.turns.context import GATEWAY_LABELS
from orchestrator.gateway.http.errors import InvalidRequest

RESERVED: Final = GATEWAY_LABELS
"""The one key in a turn's metadata that is reserved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """How a turn was requested.

    Attributes:
        background: Whether the caller asked for a background response.
        implicit: Whether the gateway created the conversation for this turn and those that
            continue it.
        previous: Id of the turn that it continues.
        seeded: How many messages the request put into the history before the turn's own.
        user: The request's `user`.
        safety_identifier: The request's `safety_identifier`.
        digest: Digest of the request if it had a key: a repeat must have the same.
        approvals_elsewhere: Whether others than the client decide about calls, so that a response
            continues while calls wait.
        opening: Digest of the request's content, if it declared functions. A request that begins
            with the same content may be the turn's continuation.
        said: Number of messages and items in that content.
        streamed: For a request that continues a turn: whether the previous part was streamed.
        stream: For a request that continues a turn: whether it is streamed.
        at: For a request that continues a turn: when it arrived, in seconds since 1970.
        decisions: For a request that continues a turn: which calls it approved (true) or rejected,
            by the id of the request for approval.
        before: For a request that continues a turn: the earlier values that it changed, as JSON
            (`client_tools`, `options`).
    """

    background: bool = False
    implicit: bool = False
    previous: str | None = None
    seeded: int = 0
    user: str | None = None
    safety_identifier: str | None = None
    digest: str | None = None
    approvals_elsewhere: bool = False
    opening: str | None = None
    said: int = 0
    streamed: bool = False
    stream: bool = False
    at: int = 0
    decisions: Mapping[str, bool] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)


_NAMES: Final = tuple(each.name for each in fields(Labels))


def labelled(metadata: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    """The metadata to store.

    Raises:
        InvalidRequest: The caller used the reserved name.
    """
    if RESERVED in metadata:
        raise InvalidRequest(f"the name {RESERVED!r} is reserved", param="metadata")
    known = {name: value for name in _NAMES if (value := getattr(labels, name))}
    return {**metadata, RESERVED: known} if known else dict(metadata)


def relabelled(stored: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the caller's part of stored metadata; the labels stay.

    Raises:
        InvalidRequest: The caller used the reserved name.
    """
    if RESERVED in metadata:
        raise InvalidRequest(f"the name {RESERVED!r} is reserved", param="metadata")
    kept = {RESERVED: stored[RESERVED]} if RESERVED in stored else {}
    return {**metadata, **kept}


def labels_of(turn: Turn) -> Labels:
    """The labels of a turn; defaults for turns that no gateway accepted.

    A gateway of another release may have stored more labels, or fewer.
    """
    return labels_in(turn, turn.metadata)


def labels_in(turn: Turn, metadata: Mapping[str, Any]) -> Labels:
    """The labels in the metadata of a turn or of one of its parts."""
    stored = metadata.get(RESERVED)
    known = stored if isinstance(stored, Mapping) else {}
    with reading(f"turn {turn.turn_id}", remedy="delete it"):
        return record_of(Labels, known)


def metadata_of(turn: Turn) -> dict[str, Any]:
    """The caller's own metadata."""
    return own_metadata(turn.metadata)


def own_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's own part of stored metadata."""
    return {name: value for name, value in metadata.items() if name != RESERVED}
