"""The tables of the archive as this release uses them; docs/guides/archive.md describes them.

`agentapi/archive/migrations` creates them. A test compares both.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, UserDefinedType

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC)


class Moment(TypeDecorator[int]):
    """Milliseconds since 1970, stored as a timestamp with time zone; in SQLite as text in UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> datetime | None:
        """The stored value. A time beyond the database's range becomes the latest possible time."""
        if value is None:
            return None
        try:
            return min(_EPOCH + timedelta(milliseconds=value), _LATEST)
        except OverflowError:
            return _LATEST

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> int | None:
        """The value as it was stored; SQLite loses the time zone."""
        if value is None:
            return None
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - _EPOCH) // timedelta(milliseconds=1)


class _Json(UserDefinedType[str]):
    """PostgreSQL's ``json``, which keeps each byte of its text, written and read as text."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"

    def column_expression(self, colexpr: Any) -> Any:
        return sa.cast(colexpr, sa.Text)

    def bind_expression(self, bindvalue: Any) -> Any:
        return sa.cast(sa.type_coerce(bindvalue, sa.Text), postgresql.JSON)


JSON: Final = sa.Text().with_variant(_Json(), "postgresql")
"""JSON as text, so that reads return what was written, byte for byte."""

ID: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text ordered by code point, as Python sorts it."""

KEY: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A number that the database assigns."""

metadata: Final = sa.MetaData()

conversations: Final = sa.Table(
    "archived_conversations",
    metadata,
    sa.Column("copy_id", KEY, sa.Identity(always=True), primary_key=True),
    sa.Column("conversation_id", ID, nullable=False),
    sa.Column("version", ID, nullable=False),
    sa.Column("user_id", ID, nullable=False),
    sa.Column("tenant_id", ID, nullable=False),
    sa.Column("agent", sa.Text),
    sa.Column("created", Moment, nullable=False),
    sa.Column("updated", Moment, nullable=False),
    sa.Column("archived", Moment, nullable=False),
    sa.Column("expires", Moment),
    sa.Column("messages", sa.Integer, nullable=False),
    sa.Column("turns", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.Double, nullable=False),
    sa.Column("metadata", JSON, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("fields", JSON, nullable=False),
    sa.UniqueConstraint("conversation_id", "version", name="archived_conversations_copy"),
    sa.Index("archived_conversations_tenant", "tenant_id", "user_id", "updated"),
    sa.Index("archived_conversations_user", "user_id", "updated"),
    sa.Index("archived_conversations_updated", "updated"),
    sa.Index("archived_conversations_expires", "expires", "conversation_id", "version"),
)


def _copy_id() -> sa.Column[int]:
    owner = sa.ForeignKey("archived_conversations.copy_id", ondelete="CASCADE")
    return sa.Column("copy_id", KEY, owner, primary_key=True, autoincrement=False)


messages: Final = sa.Table(
    "archived_messages",
    metadata,
    _copy_id(),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("role", sa.Text),
    sa.Column("body", JSON),
    sa.Column("raw", sa.LargeBinary),
)

summaries: Final = sa.Table(
    "archived_summaries",
    metadata,
    _copy_id(),
    sa.Column("covered", sa.Integer, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

blobs: Final = sa.Table(
    "archived_blobs",
    metadata,
    _copy_id(),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

turns: Final = sa.Table(
    "archived_turns",
    metadata,
    sa.Column("turn_id", ID, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("conversation_id", ID, nullable=False),
    sa.Column("user_id", ID, nullable=False),
    sa.Column("tenant_id", ID, nullable=False),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("steps", sa.Integer, nullable=False),
    sa.Column("worker", sa.Text),
    sa.Column("parent_id", sa.Text),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("created", Moment, nullable=False),
    sa.Column("started", Moment),
    sa.Column("ended", Moment, nullable=False),
    sa.Column("archived", Moment, nullable=False),
    sa.Column("expires", Moment, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.Double, nullable=False),
    sa.Column("metadata", JSON, nullable=False),
    sa.Column("fields", JSON, nullable=False),
    sa.Index("archived_turns_conversation", "conversation_id", "created"),
    sa.Index("archived_turns_tenant", "tenant_id", "created"),
    sa.Index("archived_turns_user", "user_id", "turn_id"),
    sa.Index("archived_turns_user_created", "user_id", "created"),
    sa.Index("archived_turns_agent", "agent", "created"),
    sa.Index("archived_turns_expires", "expires"),
)

TABLES: Final = (conversations, messages, summaries, blobs, turns)
