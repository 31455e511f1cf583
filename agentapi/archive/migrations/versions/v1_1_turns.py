"""Turns that have ended."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "1.1"
down_revision = "1.0"


def upgrade() -> None:
    """Add the table of turns."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    text: Any = sa.Text() if on_sqlite else sa.Text(collation="C")
    json: Any = sa.Text() if on_sqlite else postgresql.JSON()
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "archived_turns",
        sa.Column("turn_id", text, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("conversation_id", text, nullable=False),
        sa.Column("user_id", text, nullable=False),
        sa.Column("tenant_id", text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("parent_id", sa.Text),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("created", moment, nullable=False),
        sa.Column("started", moment),
        sa.Column("ended", moment, nullable=False),
        sa.Column("archived", moment, nullable=False),
        sa.Column("expires", moment, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.Double, nullable=False),
        sa.Column("metadata", json, nullable=False),
        sa.Column("fields", json, nullable=False),
        sa.Index("archived_turns_conversation", "conversation_id", "created"),
        sa.Index("archived_turns_tenant", "tenant_id", "created"),
        sa.Index("archived_turns_user", "user_id", "turn_id"),
        sa.Index("archived_turns_expires", "expires"),
    )
