"""An in-memory archive, for tests that move and restore conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentapi.archive.protocol import ArchiveCount, ArchivedConversation, ArchivedRow
from agentapi.archive.turns import ArchivedTurn, FoundTurns, TurnFilter


class MemoryArchive:
    """An `Archive`. It calls `before` with the name of each method; `before` may raise."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], ArchivedConversation] = {}
        self.turns: dict[tuple[str, int], ArchivedTurn] = {}
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

    def put_turns(self, turns: Sequence[ArchivedTurn]) -> frozenset[tuple[str, int]]:
        self.before("put_turns")
        for turn in turns:
            self.turns.setdefault((turn.turn_id, turn.version), turn)
        newest = {(turn_id, copy.version) for turn_id, copy in self._newest().items()}
        return frozenset((turn.turn_id, turn.version) for turn in turns) & newest

    def _newest(self) -> dict[str, ArchivedTurn]:
        return {turn_id: copy for (turn_id, _), copy in sorted(self.turns.items())}

    def turns_of(self, turn_ids: Sequence[str], *, whole: bool = True) -> Sequence[ArchivedTurn]:
        self.before("turns_of")
        return [copy for turn_id, copy in self._newest().items() if turn_id in turn_ids]

    def find_turns(self, wanted: TurnFilter, limit: int) -> FoundTurns:
        self.before("find_turns")
        found = sorted(
            (copy for copy in self._newest().values() if _matches(copy, wanted)),
            key=lambda copy: (copy.created, copy.turn_id),
            reverse=True,
        )
        reached = found[limit - 1].created if len(found) >= limit else None
        turns = [copy for copy in found if reached is None or copy.created >= reached]
        return FoundTurns(turns=turns, reached=reached, looked_at=len(turns))

    def turn_page(
        self,
        *,
        user_id: str | None = None,
        tenant_id: str | None = None,
        conversation_id: str | None = None,
        after: str = "",
        limit: int = 1000,
    ) -> Sequence[ArchivedTurn]:
        return [
            copy
            for turn_id, copy in self._newest().items()
            if turn_id > after
            and _fits(copy, user_id, tenant_id)
            and conversation_id in (None, copy.conversation_id)
        ][:limit]

    def delete_turns(self, copies: Sequence[tuple[str, int]]) -> int:
        self.before("delete_turns")
        return sum(self.turns.pop(copy, None) is not None for copy in copies)

    def delete_turns_of(self, *, user_id: str | None = None, tenant_id: str | None = None) -> int:
        return self.delete_turns(
            [key for key, copy in self.turns.items() if _fits(copy, user_id, tenant_id)]
        )

    def expired_turns(self, now: int, limit: int = 500) -> Sequence[tuple[str, int, int]]:
        self.before("expired_turns")
        return [
            (turn_id, version, copy.created)
            for (turn_id, version), copy in self.turns.items()
            if copy.expires <= now
        ][:limit]

    def close(self) -> None:
        pass


def _fits(turn: ArchivedTurn, user_id: str | None, tenant_id: str | None) -> bool:
    return user_id in (None, turn.user_id) and tenant_id in (None, turn.tenant_id)


def _matches(turn: ArchivedTurn, wanted: TurnFilter) -> bool:
    since, until = wanted.since, wanted.until
    return (
        turn.status in wanted.statuses
        and wanted.agent in (None, turn.agent)
        and wanted.conversation_id in (None, turn.conversation_id)
        and _fits(turn, wanted.user_id, wanted.tenant_id)
        and (since is None or turn.created >= since)
        and (
            until is None
            or turn.created < until
            or (turn.created == until and (not wanted.behind or turn.turn_id < wanted.behind))
        )
    )
