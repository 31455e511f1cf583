"""How the tables came about: one module a step, for Alembic."""
