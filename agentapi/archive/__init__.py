"""Where conversations go that nobody has used for long: a database outside of Redis."""

import logging

# Alembic logs at level INFO, even while it is imported, in lines of its own form; `prepare` logs in
# ours.
logging.getLogger("alembic").setLevel(logging.WARNING)
