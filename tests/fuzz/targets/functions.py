"""What functions given as `system_prompt` and `tools` return and raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from hypothesis import strategies as st

from agentapi import Agent, TurnContext
from tests.fuzz.rig import INNOCENT, Rig
from tests.fuzz.targets.tools import ERRORS, RESULTS, in_thread
from tests.fuzz.values import CANARY

_TOOLS: Final[dict[str, Callable[[], Any]]] = {
    "tool": lambda: [in_thread],
    "tool without a list": lambda: in_thread,
    "tuple": lambda: (in_thread,),
    "tool twice": lambda: [in_thread, in_thread],
    "text in a list": lambda: [CANARY],
}


def _given(turn: TurnContext) -> Any:
    kind, _, name = turn.context["case"].partition(":")
    if kind == "raise":
        raise ERRORS[name]()
    return {**RESULTS, **_TOOLS}[name]()


async def _given_later(turn: TurnContext) -> Any:
    return _given(turn)


def agents() -> Sequence[Agent]:
    """The victims."""
    return [
        Agent(name="odd-prompt", provider="odd-calls", system_prompt=_given),
        Agent(name="odd-prompt-later", provider="odd-calls", system_prompt=_given_later),
        Agent(name="odd-list", provider="odd-calls", tools=_given),
        Agent(name="odd-list-later", provider="odd-calls", tools=_given_later),
    ]


class FunctionTarget:
    """See the module."""

    name = "functions"
    examples = 100

    def __init__(self, rig: Rig) -> None:
        self._rig = rig

    def strategy(self) -> st.SearchStrategy[tuple[str, str]]:
        """See `Target.strategy`."""
        cases = [f"return:{name}" for name in (*RESULTS, *_TOOLS)]
        cases += [f"raise:{name}" for name in ERRORS]
        victims = [agent.name for agent in agents()]
        return st.tuples(st.sampled_from(victims), st.sampled_from(cases))

    def attack(self, example: tuple[str, str]) -> None:
        """See `Target.attack`."""
        victim, case = example
        code = "prompt_failed" if victim.startswith("odd-prompt") else "tools_failed"
        with self._rig.innocent(INNOCENT):
            fate = self._rig.run(victim, f"{CANARY} hi", context={"case": case})
        assert fate.completed or fate.code == code, f"{fate.code}: {fate.message[:300]}"
        assert fate.completed or len(fate.message) < 10_000
        self._rig.read(fate)
        self._rig.check()

    def settle(self) -> None:
        """See `Target.settle`."""
        self._rig.settle()
