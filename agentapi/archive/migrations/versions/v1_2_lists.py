"""Lists of the turns of a user or an agent."""

from __future__ import annotations

from alembic import op

revision = "1.2"
down_revision = "1.1"


def upgrade() -> None:
    """Add the indexes that such lists need."""
    op.create_index("archived_turns_user_created", "archived_turns", ["user_id", "created"])
    op.create_index("archived_turns_agent", "archived_turns", ["agent", "created"])
