"""`DataProducer`: exports and imports conversations, and deletes a user's data."""

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
    """A producer that also exports and imports conversations, and deletes users' data."""

    def export_conversations(
        self,
        conversation_id: str | None = None,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
    ) -> Iterator[bytes]:
        """Export conversations: histories, summaries, metadata, images and files.

        Each conversation is copied at one moment, between two turns. A conversation that is created
        during the export may be missing. Results of turns are not exported.

        Args:
            conversation_id: One conversation; all conversations when not given.
            tenant_id: Only conversations of this tenant; "" for those without a tenant.
            user_id: Only conversations that this user began; "" for those without a user.

        Returns:
            The lines of a JSON Lines file, each with its newline; docs/guides/backup.md describes
            them. The last line marks the export as complete.

        Raises:
            InvalidConversationId: The id is not valid.
            InvalidInput: A conversation and a filter are given.
            ConversationBusy: A conversation changed during every attempt to read it.
            StoreUnavailable: Redis is out of reach.
        """
        whose = Whose(tenant_id=tenant_id, user_id=user_id)
        return export_of(self.store, conversation_id, whose).lines()

    def import_conversations(
        self, lines: Iterable[bytes | str], *, replace: bool = False, dry_run: bool = False
    ) -> ImportResult:
        """Import conversations that `export_conversations` exported.

        Each conversation appears complete, in one step. Conversations that the same export already
        created are left as they are, so an interrupted import can be repeated.

        Args:
            lines: The lines of an export, such as a file opened with ``"rb"``.
            replace: Whether to replace existing conversations. A conversation with turns that have
                not ended is never replaced.
            dry_run: Whether to check all lines without changing anything, and return what would be
                done.

        Raises:
            InvalidInput: A line is not valid. The conversations before it have been imported.
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
        """Delete a user's data: everything with this user id.

        A conversation that the user began is deleted completely, including messages of others. In
        conversations that others began, the user's turns are deleted with their messages, and so is
        the summary if it covers them. Turns that have not ended are cancelled. The call can be
        repeated at any time.

        Args:
            user_id: The user.
            tenant_id: Only data of this tenant; "" for data without a tenant; all when not given.
            dry_run: Whether to change nothing, and return what would be deleted.
            timeout: Seconds to wait for running turns; a little longer than a lease when not given.

        Returns:
            How much was deleted, and which turns did not stop in time.

        Raises:
            InvalidInput: The user's id is empty.
            ArchiveUnavailable: The archive is out of reach, and some data may be deleted; or
                conversations are in the archive but AGENTAPI_ARCHIVE_URL is not set, and nothing is
                deleted.
            ArchiveLost: A turn of the user belongs to another user's conversation, which the
                archive has lost.
            StoreUnavailable: Redis is out of reach. Some data may be deleted.
        """
        whose = Whose(user_id=checked_user(user_id), tenant_id=tenant_id)
        if dry_run:
            return count_user(self.store, whose)
        wait = self.settings.lease_ttl + MORE_THAN_LEASE if timeout is None else timeout
        return Forgetting(self.store, whose, self.cancel, wait).run()
