"""What fuzzing a provider is, whichever it is."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st

from agentapi import tool
from tests.fuzz.answers import Answer, PlainAnswer, StreamAnswer
from tests.fuzz.odd_server import NOT_JSON
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


Otherwise: TypeAlias = Callable[[str, bool, Any], Answer]
"""What is answered when nothing was told: by model, whether to stream, and request."""

_MODEL: Final = re.compile(r"/models/([^:/]+):")


@dataclass
class Models:
    """Answers each model as it was told; what it was not told about gets a valid answer."""

    otherwise: Otherwise
    scripts: dict[str, deque[Answer]] = field(default_factory=lambda: defaultdict(deque))
    requests: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def will(self, model: str, *answers: Answer) -> None:
        """Let a model's next requests get these answers, and none that was left from before."""
        self.requests[model].clear()
        self.scripts[model] = deque(answers)

    def __call__(self, method: str, path: str, sent: Any) -> Answer:
        """See `odd_server`."""
        named = _MODEL.search(path)
        model = named[1] if named else str((sent or {}).get("model"))
        self.requests[model].append(sent)
        script = self.scripts[model]
        if script:
            return script.popleft()
        # A client that was sent elsewhere asks without a body.
        stream = bool(sent and sent.get("stream")) or "stream" in path
        return self.otherwise(model, stream, sent)


class ProviderTarget:
    """A turn whose first model call gets the example, and whose conversation goes on after it."""

    name = ""
    examples = 0

    def __init__(self, rig: Rig, models: Models) -> None:
        self._rig = rig
        self._models = models
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
        self._models.will("odd", self.answer(odd))
        with self._rig.innocent(f"fine-{self.name}"):
            fate = self._rig.run(agent, f"{CANARY} hi", **more)
        self._judge(fate)
        self._models.will("odd")
        self._rig.forget_providers()
        after = self._rig.run(agent, "And now?", **more)
        assert after.completed, f"the conversation is broken: {after.code} {after.message[:300]}"
        requests = self._models.requests["odd"]
        found = [p for request in requests for p in self.problems(request)]
        found += [NOT_JSON for request in requests if NOT_JSON in json.dumps(request)]
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
