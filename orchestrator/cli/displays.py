"""Shows a running turn to a person at a terminal, or to a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from orchestrator.cli.console import Printer, note, print_json
from orchestrator.cli.first_in_line import why_not_started
from orchestrator.cli.views import call_json, call_text, event_json, result_json
from orchestrator.cli.watching import Display
from orchestrator.wording import counted, wait_of

if TYPE_CHECKING:
    from agentapi import Event, PendingCall, TurnResult
    from orchestrator import Orchestrator
    from orchestrator.handle import TurnHandle


class TextDisplay(Display):
    """Prints the reply to standard output, and progress to standard error."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        """Create the display.

        Args:
            orchestrator: Used to look up the conversation's other turns.
        """
        self._orchestrator = orchestrator
        self._printer = Printer()
        self._shown = ""

    @override
    def show(self, event: Event) -> None:
        from agentapi import EventType

        match event.type:
            case EventType.DELTA:
                self._shown += event.data["text"]
                self._printer.write(event.data["text"])
            case EventType.RESET if self._shown:
                self._remark("a worker was lost; the reply starts again")
            case EventType.STEP if event.data.get("kind") == "model":
                self._model_answered(event)
            case EventType.PARKED:
                self._parked(event)
            case _:
                pass

    def _parked(self, event: Event) -> None:
        if (waits := wait_of(event)) is not None:
            self._remark(waits)
        elif event.data.get("reason") == "children":
            turns = event.data.get("turns", ())
            self._remark(f"waits for {counted(len(turns), 'other turn')}")

    def _model_answered(self, event: Event) -> None:
        if tools := event.data.get("tools"):
            self._remark(f"calls {', '.join(tools)}")
        elif event.data.get("rejected"):
            self._remark("the reply does not have the expected format; asking the model again")

    @override
    def ask(self, turn_id: str, calls: Sequence[PendingCall]) -> bool:
        self._printer.end_line()
        for call in calls:
            note(call_text(call))
        note(f"waits for approval: agentapi pending {turn_id}")
        return True

    @override
    def wait_for_start(self, handle: TurnHandle) -> None:
        note(f"(not started yet: {why_not_started(self._orchestrator, handle)})")

    @override
    def end(self, handle: TurnHandle, result: TurnResult) -> None:
        if self._shown != result.text:
            # There was no stream, or it showed only a part of the reply.
            self._printer.end_line()
            self._printer.write(result.text)
        self._printer.end_line()
        if result.finish_reason != "stop":
            note(f"(the reply is not complete: {result.finish_reason})")
        note(
            f"{handle.turn_id}: {counted(result.steps, 'step')}, "
            f"{counted(result.usage.total_tokens, 'token')}"
        )

    @override
    def close(self) -> None:
        self._printer.end_line()

    def _remark(self, text: str) -> None:
        """Print a remark to standard error. The text shown so far was not final."""
        self._printer.end_line()
        self._shown = ""
        note(f"({text})")


class ResultDisplay(Display):
    """Prints one JSON object: the result."""

    @override
    def show(self, event: Event) -> None:
        """Do nothing: only the result is printed."""

    @override
    def ask(self, turn_id: str, calls: Sequence[PendingCall]) -> bool:
        """Do nothing: the caller learns from its timeout that the turn waits."""
        return False

    @override
    def wait_for_start(self, handle: TurnHandle) -> None:
        """Nothing."""

    @override
    def end(self, handle: TurnHandle, result: TurnResult) -> None:
        print_json(result_json(handle.turn_id, handle.conversation_id, result))

    @override
    def close(self) -> None:
        """Nothing: each object is a line."""


class JsonDisplay(Display):
    """Prints a JSON object for each event, and one for the result."""

    @override
    def show(self, event: Event) -> None:
        print_json(event_json(event))

    @override
    def ask(self, turn_id: str, calls: Sequence[PendingCall]) -> bool:
        for call in calls:
            print_json({"type": "approval", **call_json(call)})
        return False

    @override
    def wait_for_start(self, handle: TurnHandle) -> None:
        """Do nothing: a program sees that no event comes."""

    @override
    def end(self, handle: TurnHandle, result: TurnResult) -> None:
        shown = result_json(handle.turn_id, handle.conversation_id, result)
        print_json({"type": "result", **shown})

    @override
    def close(self) -> None:
        """Nothing: each object is a line."""
