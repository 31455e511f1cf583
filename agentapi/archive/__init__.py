"""The archive: a database outside of Redis for conversations that have been idle for long."""

import logging

# Alembic logs at level INFO in its own format, even while it is imported. `prepare` logs in ours.
logging.getLogger("alembic").setLevel(logging.WARNING)
