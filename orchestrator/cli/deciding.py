"""Asks a person at the terminal about tool calls that need approval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.cli.asking import Lines
from orchestrator.cli.console import errors, note, printable
from orchestrator.cli.views import call_text

if TYPE_CHECKING:
    from agentapi import PendingCall
    from orchestrator.handle import TurnHandle

_HELP = "y: approve, n: reject, e: edit the arguments and approve, l: decide later"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decider:
    """Decides about the calls of a turn.

    Attributes:
        lines: Source of the answers.
        by: Who decides, for the record.
    """

    lines: Lines
    by: str | None = None

    def decide(self, handle: TurnHandle, calls: Sequence[PendingCall]) -> bool:
        """Ask about each call; returns whether all of them are decided.

        Raises:
            KeyboardInterrupt: Ctrl-C.
            StoreUnavailable: Redis is out of reach.
        """
        # After one call was left for later, the others can still be decided.
        decided = [self._decide(handle, call) for call in calls]
        return all(decided)

    def _decide(self, handle: TurnHandle, call: PendingCall) -> bool:
        if not self.lines.quiet:
            errors.print(
                printable(call_text(call)),
                style="bold yellow",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        while True:
            answer = self.lines.read("approve? [y/n/e/l] ")
            match (answer or "l").lower():
                case "y" | "yes":
                    return self._apply(handle, call, approve=True)
                case "n" | "no":
                    reason = self.lines.read("reason, shown to the model (optional): ")
                    return self._apply(handle, call, approve=False, reason=reason or None)
                case "e" | "edit":
                    if self._edit(handle, call):
                        return True
                case "l" | "later":
                    note(
                        "Not decided. New messages wait for the decision. Decide with /follow, or "
                        f"see: agentapi pending {handle.turn_id}"
                    )
                    return False
                case _:
                    note(_HELP)

    def _edit(self, handle: TurnHandle, call: PendingCall) -> bool:
        """Let the person edit the arguments; returns whether the call is decided."""
        text = json.dumps(dict(call.arguments), ensure_ascii=False)
        while True:
            edited = self.lines.read("arguments: ", text)
            if not edited:
                return False
            text = edited
            try:
                arguments = json.loads(edited)
            except ValueError as error:
                note(f"not JSON: {error}; an empty line stops editing")
                continue
            if not isinstance(arguments, dict):
                note("not a JSON object; an empty line stops editing")
            elif self._apply(handle, call, approve=True, arguments=arguments):
                return True

    def _apply(
        self,
        handle: TurnHandle,
        call: PendingCall,
        *,
        approve: bool,
        reason: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> bool:
        from agentapi.errors import CallNotPending, InvalidInput

        try:
            if approve:
                handle.approve(call.call_id, by=self.by, arguments=arguments)
            else:
                handle.reject(call.call_id, reason, by=self.by)
        except CallNotPending as error:
            # Somebody else decided first, or the time ran out.
            note(str(error))
        except InvalidInput as error:
            note(str(error))
            return False
        return True
