"""Ends for which hooks must be called, in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from typing_extensions import override

from agentapi.ids import partition_of_turn
from agentapi.stores.in_memory.state import State
from agentapi.stores.telling import (
    FIRST_DELAY,
    LONGEST_DELAY,
    MOST_FAILURES,
    HookStore,
    Telling,
    UntoldEnd,
)


class InMemoryHooks(HookStore):
    """The `HookStore` of eager mode."""

    def __init__(self, state: State) -> None:
        self._state = state

    @override
    def expect(self, agents: Collection[str], seconds: float) -> None:
        with self._state.changed:
            until = self._state.now() + seconds
            self._state.hooked |= dict.fromkeys(agents, until)

    @override
    def untold(self) -> list[int]:
        with self._state.changed:
            now = self._state.now()
            due = (entry for entry, at in self._state.untold.items() if at <= now)
            return sorted({partition_of_turn(entry.partition(":")[0]) for entry in due})

    @override
    def tell(
        self, partition: int, agents: Collection[str], *, call: str, seconds: float, most: int
    ) -> Sequence[UntoldEnd]:
        with self._state.changed:
            before: Sequence[UntoldEnd] | None = self._state.answer_before(str(partition), call)
            if before is not None:
                return before
            taken: list[UntoldEnd] = []
            now = self._state.now()
            for entry, at in sorted(self._state.untold.items(), key=lambda item: item[::-1]):
                turn_id, _, agent = entry.split(":", 2)
                if at > now or partition_of_turn(turn_id) != partition:
                    continue
                end = self._standing(entry)
                unserved = agent not in agents and self._state.hooked.get(agent, 0) <= now
                if end is None or unserved:
                    del self._state.untold[entry]
                elif agent in agents and len(taken) < most:
                    self._state.untold[entry] = now + seconds
                    taken.append(end)
            return self._state.keep_answer(str(partition), call, taken) if taken else taken

    def _standing(self, entry: str) -> UntoldEnd | None:
        """The end, unless a retry has undone it or the turn no longer exists."""
        turn_id, number, agent = entry.split(":", 2)
        stored = self._state.turns.get(turn_id)
        if stored is None or not stored.turn.status.ended or stored.turn.last_event != int(number):
            return None
        return UntoldEnd(
            entry=entry,
            end_id=f"{turn_id}:{number}",
            turn_id=turn_id,
            agent=agent,
            turn=stored.turn,
        )

    @override
    def hold(self, ends: Sequence[UntoldEnd], seconds: float) -> None:
        with self._state.changed:
            until = self._state.now() + seconds
            held = {end.entry for end in ends} & set(self._state.untold)
            self._state.untold |= dict.fromkeys(held, until)

    @override
    def told(self, end: UntoldEnd, *, failed: bool, call: str) -> Telling:
        with self._state.changed:
            before: Telling | None = self._state.answer_before(end.entry, call)
            if before is not None:
                return before
            stored = self._state.turns.get(end.turn_id)
            if not failed or end.entry not in self._state.untold or stored is None:
                self._state.untold.pop(end.entry, None)
                return Telling.TOLD
            stored.untold += 1
            if stored.untold >= MOST_FAILURES:
                del self._state.untold[end.entry]
                return self._state.keep_answer(end.entry, call, Telling.GIVEN_UP)
            delay = min(FIRST_DELAY * 2 ** (stored.untold - 1), LONGEST_DELAY)
            self._state.untold[end.entry] = self._state.now() + delay
            return self._state.keep_answer(end.entry, call, Telling.AGAIN)
