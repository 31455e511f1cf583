"""An archive in memory, for tests of what moves conversations there and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentapi.archive.protocol import ArchiveCount, ArchivedConversation, ArchivedRow


class MemoryArchive:
    """An `Archive`. `before` is called with the name of each method, and may raise."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], ArchivedConversation] = {}
        self.before: Callable[[str], object] = lambda name: None

    def prepare(self) -> None:
        self.before("prepare")

    def put(self, conversation: ArchivedConversation) -> None:
        self.before("put")
        row = conversation.row
        self.rows.setdefault((row.conversation_id, row.version), conversation)

    def get(self, conversation_id: str, version: str) -> ArchivedConversation | None:
        self.before("get")
        return self.rows.get((conversation_id, version))

    def delete(self, conversation_id: str, version: str) -> bool:
        self.before("delete")
        return self.rows.pop((conversation_id, version), None) is not None

    def _of(self, user_id: str | None, tenant_id: str | None) -> list[ArchivedRow]:
        rows = [copy.row for _, copy in sorted(self.rows.items())]
        return [
            row
            for row in rows
            if user_id in (None, row.user_id) and tenant_id in (None, row.tenant_id)
        ]

    def delete_of(
        self, *, user_id: str | None = None, tenant_id: str | None = None
    ) -> ArchiveCount:
        count = self.count(user_id=user_id, tenant_id=tenant_id)
        for row in self._of(user_id, tenant_id):
            del self.rows[row.conversation_id, row.version]
        return count

    def count(self, *, user_id: str | None = None, tenant_id: str | None = None) -> ArchiveCount:
        rows = self._of(user_id, tenant_id)
        return ArchiveCount(conversations=len(rows), messages=sum(row.messages for row in rows))

    def page(
        self,
        *,
        user_id: str | None = None,
        tenant_id: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int = 100,
    ) -> Sequence[ArchivedRow]:
        rows = self._of(user_id, tenant_id)
        return [r for r in rows if after is None or (r.conversation_id, r.version) > after][:limit]

    def expired(
        self, now: int, *, after: tuple[int, str, str] | None = None, limit: int = 100
    ) -> Sequence[ArchivedRow]:
        rows = sorted(
            ((row.expires, row.conversation_id, row.version), row)
            for row in self._of(None, None)
            if row.expires is not None and row.expires <= now
        )
        return [row for key, row in rows if after is None or key > after][:limit]

    def close(self) -> None:
        pass
