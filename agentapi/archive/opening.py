"""Opens the archive that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentapi.extras import require_extra
from agentapi.settings import Settings

if TYPE_CHECKING:
    from agentapi.archive.sql import SqlArchive


def open_archive(settings: Settings) -> SqlArchive | None:
    """The archive of `settings.archive_url`; None if it is not set. Connects when first used.

    Raises:
        ConfigurationError: The URL is not valid, or the extra `archive` is not installed.
    """
    if not settings.archive_url:
        return None
    require_extra("archive", "the archive (AGENTAPI_ARCHIVE_URL)")
    # Imported only if there is an archive: SQLAlchemy is an extra.
    from agentapi.archive.sql import SqlArchive

    return SqlArchive(settings.archive_url)
