"""`DataProducer`: conversations copied out and brought back, and a person's data deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agentapi.stores.data import Whose
from orchestrator.data.exporting import export_of
from orchestrator.data.forgetting import (
    MORE_THAN_LEASE,
    Forgetting,
    ForgottenUser,
    checked_user,
    count_user,
)
from orchestrator.data.importing import Import, ImportResult
from orchestrator.producer_lists import ListsProducer


class DataProducer(ListsProducer):
    """A producer that also copies conversations out and back, and deletes people's data."""

    def export_conversations(
        self,
        conversation_id: str | None = None,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
    ) -> Iterator[bytes]:
        """Copy conversations out: histories, summaries, metadata, images and files.

        Each conversation is copied as it is at one moment, between two turns. One that is created
        meanwhile may be missing. Results of turns are not part of an export.

        Args:
            conversation_id: One conversation; all when not given.
            tenant_id: Only those of this tenant; "" for those of no tenant.
            user_id: Only those that this user has begun; "" for those of no user.

        Returns:
            The lines of a JSON Lines file, each with its end; docs/guides/backup.md describes
            them. The last one says that the export is complete.

        Raises:
            InvalidConversationId: The id is not valid.
            InvalidInput: A conversation and a filter are given.
            ConversationBusy: A conversation was changed each time that it was read.
            StoreUnavailable: Redis is out of reach.
        """
        whose = Whose(tenant_id=tenant_id, user_id=user_id)
        return export_of(self.store, conversation_id, whose).lines()

    def import_conversations(
        self, lines: Iterable[bytes | str], *, replace: bool = False, dry_run: bool = False
    ) -> ImportResult:
        """Bring conversations back that `export_conversations` has copied out.

        Each conversation appears in one step, complete. What the same export has brought before is
        left as it is, so an import that was interrupted can be repeated.

        Args:
            lines: The lines of an export, such as a file opened with ``"rb"``.
            replace: Whether to replace conversations that exist. One with turns that have not
                ended is never replaced.
            dry_run: Check all lines, change nothing, and return what would be done.

        Raises:
            InvalidInput: A line is not valid. The conversations before it are imported.
            StoreUnavailable: Redis is out of reach. Some conversations may be imported.
        """
        importing = Import(self.store, replace=replace, dry_run=dry_run)
        for _ in importing.run(lines):
            pass
        return importing.result

    def forget_user(
        self,
        user_id: str,
        *,
        tenant_id: str | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> ForgottenUser:
        """Delete a person's data: everything with this user id.

        A conversation that the user has begun is deleted as a whole, with what others have said in
        it. In conversations that others have begun, the user's turns are deleted with their
        messages, and the summary if it covers them. Turns that have not ended are cancelled. It can
        be called again at any time.

        Args:
            user_id: The user.
            tenant_id: Only what belongs to this tenant; "" for no tenant; all when not given.
            dry_run: Change nothing, and return what would be deleted.
            timeout: Seconds to wait for turns that run; a little longer than a lease when not
                given.

        Returns:
            How much was deleted, and which turns have not stopped in time.

        Raises:
            InvalidInput: The user's id is empty.
            ArchiveUnavailable: The archive is out of reach; some of it may be deleted. Or
                conversations are in the archive, and AGENTAPI_ARCHIVE_URL is not set: then nothing
                is deleted.
            ArchiveLost: A turn of the user is in somebody else's conversation, and the archive
                does not have that conversation.
            StoreUnavailable: Redis is out of reach. Some of it may be deleted.
        """
        whose = Whose(user_id=checked_user(user_id), tenant_id=tenant_id)
        if dry_run:
            return count_user(self.store, whose)
        wait = self.settings.lease_ttl + MORE_THAN_LEASE if timeout is None else timeout
        return Forgetting(self.store, whose, self.cancel, wait).run()
