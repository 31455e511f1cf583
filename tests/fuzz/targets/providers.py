"""What fuzzing a provider is, whichever it is."""

from __future__ import annotations

import itertools
from typing import Any, Final

from hypothesis import strategies as st

from agentapi import tool
from tests.fuzz.answers import Answer, PlainAnswer, StreamAnswer
from tests.fuzz.odd_server import OddServer
from tests.fuzz.rig import Fate, Rig
from tests.fuzz.values import CANARY

CLEAR: Final = frozenset(
    {
        "provider_unavailable",
        "provider_rejected",
        "provider_misconfigured",
        "context_too_long",
        "max_steps",
    }
)
"""How a turn may fail whose provider answers nonsense."""

LONGEST_ERROR: Final = 4_000
"""Characters of an error's text; a page of HTML says no more than its beginning."""


@tool
async def look(at: str = "") -> str:
    """Look at something."""
    return f"seen: {at}"


class ProviderTarget:
    """A turn whose first model call gets the example, and whose conversation goes on after it."""

    name = ""
    examples = 0

    def __init__(self, rig: Rig, server: OddServer) -> None:
        self._rig = rig
        self._server = server
        self._numbers = itertools.count()

    def strategy(self) -> st.SearchStrategy[tuple[Any, bool]]:
        """An answer, and whether a turn that fails leaves what it did in the history."""
        return st.tuples(self.answers(), st.booleans())

    def answers(self) -> st.SearchStrategy[PlainAnswer | StreamAnswer]:
        """Answers of the provider."""
        raise NotImplementedError

    def answer(self, example: Any) -> Answer:
        """The bytes that the server sends."""
        raise NotImplementedError

    def problems(self, request: Any) -> list[str]:
        """What the real provider would refuse in a request."""
        raise NotImplementedError

    def attack(self, example: tuple[PlainAnswer | StreamAnswer, bool]) -> None:
        """See `Target.attack`."""
        odd, keep = example
        stream = isinstance(odd, StreamAnswer)
        conversation = f"{self.name}:{next(self._numbers)}"
        more: dict[str, Any] = {
            "conversation_id": conversation,
            "stream": stream,
            "on_abort": "keep" if keep else "drop",
        }
        agent = f"odd-{self.name}"
        self._server.will("odd", self.answer(odd))
        with self._rig.innocent(f"fine-{self.name}"):
            fate = self._rig.run(agent, f"{CANARY} hi", **more)
        self._judge(fate)
        self._server.will("odd")
        self._rig.forget_providers()
        after = self._rig.run(agent, "And now?", **more)
        assert after.completed, f"the conversation is broken: {after.code} {after.message[:300]}"
        found = [p for request in self._server.requests["odd"] for p in self.problems(request)]
        assert not found, f"the provider would refuse the history: {found}"
        self._rig.read(fate)
        self._rig.check()

    def _judge(self, fate: Fate) -> None:
        if fate.completed:
            return
        assert fate.code in CLEAR, f"not a clear error: {fate.code} {fate.message[:300]}"
        assert 10 < len(fate.message) <= LONGEST_ERROR, f"an error of {len(fate.message)}"

    def settle(self) -> None:
        """See `Target.settle`."""
        self._rig.settle()
