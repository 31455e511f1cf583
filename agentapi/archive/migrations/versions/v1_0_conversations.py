"""Conversations with their messages, summaries and blobs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "1.0"
down_revision = None

_TEXTS = """
CREATE VIEW archived_texts AS
SELECT c.conversation_id, c.tenant_id, c.user_id, m.position, m.role,
       {content} AS content, {turn} AS turn_id
FROM archived_conversations AS c JOIN archived_messages AS m ON m.copy_id = c.copy_id
"""


def _copy_id(on_sqlite: bool) -> sa.Column[Any]:
    kind = sa.Integer() if on_sqlite else sa.BigInteger()
    owner = sa.ForeignKey("archived_conversations.copy_id", ondelete="CASCADE")
    return sa.Column("copy_id", kind, owner, primary_key=True, autoincrement=False)


def upgrade() -> None:
    """Create the tables of the first release."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    text: Any = sa.Text() if on_sqlite else sa.Text(collation="C")
    json: Any = sa.Text() if on_sqlite else postgresql.JSON()
    moment = sa.DateTime(timezone=True)
    key = sa.Integer() if on_sqlite else sa.BigInteger()
    op.create_table(
        "archived_conversations",
        sa.Column("copy_id", key, sa.Identity(always=True), primary_key=True),
        sa.Column("conversation_id", text, nullable=False),
        sa.Column("version", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=False),
        sa.Column("agent", sa.Text),
        sa.Column("created", moment, nullable=False),
        sa.Column("updated", moment, nullable=False),
        sa.Column("archived", moment, nullable=False),
        sa.Column("expires", moment),
        sa.Column("messages", sa.Integer, nullable=False),
        sa.Column("turns", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.Double, nullable=False),
        sa.Column("metadata", json, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("fields", json, nullable=False),
        sa.UniqueConstraint("conversation_id", "version", name="archived_conversations_copy"),
        sa.Index("archived_conversations_tenant", "tenant_id", "user_id", "updated"),
        sa.Index("archived_conversations_user", "user_id", "updated"),
        sa.Index("archived_conversations_updated", "updated"),
        sa.Index("archived_conversations_expires", "expires", "conversation_id", "version"),
    )
    op.create_table(
        "archived_messages",
        _copy_id(on_sqlite),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("role", sa.Text),
        sa.Column("body", json),
        sa.Column("raw", sa.LargeBinary),
    )
    op.create_table(
        "archived_summaries",
        _copy_id(on_sqlite),
        sa.Column("covered", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_table(
        "archived_blobs",
        _copy_id(on_sqlite),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    get = "json_extract(m.body, '$.{}')" if on_sqlite else "m.body ->> '{}'"
    op.execute(_TEXTS.format(content=get.format("content"), turn=get.format("turn_id")))
