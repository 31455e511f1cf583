"""Alembic migrations of the archive's tables, one module per step."""
