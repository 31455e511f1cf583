"""Creates and migrates the archive's tables.

A revision is ``MAJOR.MINOR``. A release works with every minor number of a major number that it
knows, because minor steps only add what older releases do not need. So consecutive releases can run
at the same time.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from agentapi.archive.engine import Database
from agentapi.errors import ConfigurationError
from agentapi.logs import line

log = logging.getLogger(__name__)

_TABLE: Final = "archive_version"
_LOCK: Final = 4_270_131_807
"""A process that migrates holds this advisory lock."""


def newest() -> str:
    """The revision that this release creates."""
    return str(_scripts().get_current_head())


def current(connection: sa.Connection) -> str | None:
    """The revision of the database; None without tables."""
    options = {"version_table": _TABLE}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def readable(found: str) -> bool:
    """Whether this release can use a revision, or migrate it."""
    return _major(found) <= _major(newest())


def prepare(database: Database) -> None:
    """Create or migrate the tables, unless they are those of this release.

    Raises:
        ArchiveUnavailable: The database cannot be used now.
        ConfigurationError: The tables are of a newer release that this one cannot read.
    """
    if not _is_ready(database.run(current, writes=False)):
        database.run(lambda connection: _migrate(database, connection), writes=True, bounded=False)


def check(found: str | None) -> None:
    """Check that this release can use a revision, or migrate it.

    Raises:
        ConfigurationError: It was written by a newer release, and this one cannot read it.
    """
    if found is not None and not readable(found):
        raise ConfigurationError(
            f"the archive's tables have version {found}, and this release reads versions up to "
            f"{_major(newest())}.x: upgrade agentapi here"
        )


def _is_ready(found: str | None) -> bool:
    check(found)
    return found is not None and (found == newest() or not _known(found))


def _migrate(database: Database, connection: sa.Connection) -> None:
    if not database.on_sqlite:
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    found = current(connection)
    if _is_ready(found):
        # Another process migrated first.
        return
    scripts = _scripts()

    def steps(revision: Any, context: MigrationContext) -> Any:
        return scripts._upgrade_revs("head", revision)

    with EnvironmentContext(_config(), scripts, fn=steps) as environment:
        environment.configure(connection=connection, version_table=_TABLE)
        environment.run_migrations()
    log.info(line("archive.migrated", before=found, version=newest()))


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "agentapi.archive:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _known(revision: str) -> bool:
    return any(script.revision == revision for script in _scripts().walk_revisions())


def _major(revision: str) -> int:
    try:
        return int(revision.partition(".")[0])
    except ValueError:
        raise ConfigurationError(
            f"the archive's table {_TABLE} has version {revision!r}, which no release has written"
        ) from None
