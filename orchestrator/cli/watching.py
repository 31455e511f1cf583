"""Follows a turn to its end: its events, and the approvals that it waits for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.cli.failures import interrupted, waits_for_approval

if TYPE_CHECKING:
    from agentapi import Event, PendingCall, TurnResult
    from orchestrator.handle import TurnHandle

_POLL: Final = 1.0
"""Seconds between two checks for approvals in turns that the followed turn waits for, whose events
are separate."""

_CHECK: Final = 0.5
"""Seconds without events before the turn is checked, and between checks."""

_PATIENCE: Final = 5.0
"""Seconds without events after which the user is told."""


class NotStarted:
    """No worker has taken the turn yet. Reported once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Approvals:
    """Calls that wait for a decision, each reported once."""

    calls: Sequence[PendingCall]


class Display(Protocol):
    """Shows the progress of a turn."""

    def show(self, event: Event) -> None:
        """Show an event."""
        ...

    def ask(self, turn_id: str, calls: Sequence[PendingCall]) -> bool:
        """Show calls that wait for a decision; returns whether a person has seen them."""
        ...

    def wait_for_start(self, handle: TurnHandle) -> None:
        """Show that no worker has taken the turn yet, and what must happen first."""
        ...

    def end(self, handle: TurnHandle, result: TurnResult) -> None:
        """Show the result."""
        ...

    def close(self) -> None:
        """Finish an unfinished line before something else is printed."""
        ...


class Watch:
    """Follows one turn.

    Attributes:
        handle: The turn.
        after: Number of the last event that was reported.
    """

    def __init__(
        self, handle: TurnHandle, after: int = -1, *, check: Callable[[], bool] | None = None
    ) -> None:
        """Watch a turn.

        Args:
            handle: The turn.
            after: Number of the last event that was reported.
            check: Called while nothing happens, as long as it returns true.
        """
        self.handle = handle
        self._check = check
        self._quiet = 0.0
        self.after = after
        self._asked: set[tuple[str, str]] = set()
        self._children = False
        self._idle = after < 0

    def run(self, timeout: float | None = None) -> Iterator[Event | Approvals | NotStarted]:
        """Yield what happens until the turn ends.

        Args:
            timeout: Longest time in seconds; no limit when not given.

        Raises:
            TurnTimeout: The turn has not ended.
            TurnNotFound: It was deleted.
            StoreUnavailable: Redis is out of reach.
            Exception: Whatever `check` raises.
        """
        from agentapi.errors import TurnTimeout

        end = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            wait = min(left, self._longest_wait())
            try:
                yield from self._events(None if wait == math.inf else max(wait, 0.0))
            except TurnTimeout:
                if time.monotonic() >= end:
                    raise
                self._quiet += wait
                if self._check is not None and not self._check():
                    self._check = None
                if self._idle and self._quiet >= _PATIENCE:
                    self._idle = False
                    yield NotStarted()
            else:
                if not self._children:
                    return
            if self._children:
                yield from self._approvals()

    def _longest_wait(self) -> float:
        """Seconds to wait for the next event."""
        waits = [max(_PATIENCE - self._quiet, 0.0)] if self._idle else []
        if self._check is not None:
            waits.append(_CHECK)
        if self._children:
            waits.append(_POLL)
        return min(waits, default=math.inf)

    def _events(self, timeout: float | None) -> Iterator[Event | Approvals]:
        """Yield events until the turn ends or begins to wait for other turns."""
        from agentapi import EventType

        for event in self.handle.events(self.after, timeout):
            self.after = event.number
            self._idle = False
            yield event
            if event.type is not EventType.PARKED:
                # The turn was continued, or has ended.
                self._children = self._children and event.type is EventType.REPLIED
            elif event.data.get("reason") == "approval":
                yield from self._approvals()
            elif event.data.get("reason") == "children":
                self._children = True
                return
        self._children = False

    def _approvals(self) -> Iterator[Approvals]:
        calls = [
            call
            for call in self.handle.pending()
            if (call.turn_id, call.call_id) not in self._asked
        ]
        if calls:
            self._asked |= {(call.turn_id, call.call_id) for call in calls}
            yield Approvals(calls=calls)


def follow_to_end(
    handle: TurnHandle,
    display: Display,
    *,
    after: int = -1,
    timeout: float | None = None,
    check: Callable[[], bool] | None = None,
) -> TurnResult:
    """Show a turn until it ends; returns its result.

    Args:
        handle: The turn.
        display: Where to show it.
        after: Number of the last event already seen.
        timeout: Longest time in seconds; no limit when not given.
        check: Called while nothing happens, as long as it returns true.

    Raises:
        TurnFailed: It failed or was cancelled.
        TurnTimeout: It has not ended.
        CommandFailed: It has not ended and waits for approval; or Ctrl-C ended the wait.
    """
    from agentapi.errors import TurnTimeout

    told = False
    try:
        for found in Watch(handle, after, check=check).run(timeout):
            match found:
                case Approvals():
                    told = display.ask(handle.turn_id, found.calls) or told
                case NotStarted():
                    display.wait_for_start(handle)
                case _:
                    display.show(found)
        result = handle.result()
        display.end(handle, result)
        return result
    except TurnTimeout:
        if handle.pending():
            raise waits_for_approval(handle.turn_id, told=told) from None
        raise
    except KeyboardInterrupt:
        raise interrupted(handle.turn_id) from None
    finally:
        display.close()
