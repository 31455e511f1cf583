"""A chat in the terminal: lines are messages, and lines with a slash are commands."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from agentapi import create_conversation_id
from agentapi.agents.names import unknown_agent
from agentapi.errors import AgentAPIError, ConfigurationError, ServerUnavailable, TurnFailed
from orchestrator.cli.asking import Lines
from orchestrator.cli.chat_commands import COMMANDS
from orchestrator.cli.console import console, errors, note, print_json
from orchestrator.cli.deciding import Decider
from orchestrator.cli.displays import JsonDisplay, TextDisplay
from orchestrator.cli.failures import (
    CommandFailed,
    ExitCode,
    exit_code_of,
    show_error,
    usage_error,
)
from orchestrator.cli.views import message_text
from orchestrator.cli.watching import Approvals, Display, NotStarted, Watch
from orchestrator.cli.worker_agents import agents_of_workers
from orchestrator.wording import counted

if TYPE_CHECKING:
    from agentapi import File, Image, PendingCall
    from orchestrator.client import Orchestrator
    from orchestrator.handle import TurnHandle

SHOWN_AT_START: Final = 10
"""Number of earlier messages that are shown when a conversation continues."""

_CENSUS_WAIT: Final = 5.0
"""Seconds that the first message waits for the list of agents."""


class Leave(Exception):
    """Ends the chat.

    Attributes:
        code: The exit code.
    """

    def __init__(self, code: ExitCode = ExitCode.OK) -> None:
        super().__init__()
        self.code = code


class ChatSession:
    """A chat in the terminal.

    Attributes:
        orchestrator: The producer.
        agent: The agent's name.
        conversation_id: The conversation.
        attachments: Images and files for the next message.
        last: The newest turn of this chat.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        agent: str,
        *,
        conversation_id: str | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        by: str | None = None,
        as_json: bool = False,
    ) -> None:
        self.orchestrator = orchestrator
        self.agent = agent
        self.conversation_id = conversation_id or create_conversation_id()
        self.attachments: list[Image | File] = []
        self.last: TurnHandle | None = None
        self._resumed = conversation_id is not None
        self._user_id = user_id
        self._tenant_id = tenant_id
        self._context = context
        self._as_json = as_json
        self._lines = Lines(quiet=as_json)
        self._decider = Decider(lines=self._lines, by=by)
        self._census: threading.Thread | None = None
        self._serving: Mapping[str, Sequence[str]] | None = None
        self._code = ExitCode.OK

    def run(self) -> ExitCode:
        """Read lines until the input ends; returns the exit code.

        If the input is not a terminal, the exit code is that of the last turn.

        Raises:
            AgentAPIError: Redis is out of reach, or the conversation cannot be used.
        """
        if self._lines.interactive:
            # In the background, because the answer takes a second, during which the user can type.
            self._census = threading.Thread(target=self._ask_workers, daemon=True)
            self._census.start()
        self._greet()
        try:
            while (line := self._read()) is not None:
                self._take(line)
        except Leave as leave:
            return leave.code
        return ExitCode.OK if self._lines.interactive else self._code

    def _greet(self) -> None:
        if self._as_json:
            print_json({"type": "conversation", "conversation_id": self.conversation_id})
            return
        note(
            f"conversation {self.conversation_id}; /help lists commands, /quit or Ctrl-D ends the "
            "chat"
        )
        if self._resumed:
            self.print_history(SHOWN_AT_START)
            self._find_open_turns()

    def _find_open_turns(self) -> None:
        """Print which turns of the conversation have not ended; `/follow` shows the newest."""
        open_turns = self.orchestrator.turns(
            conversation_id=self.conversation_id, status=("queued", "running", "parked")
        )
        # Lists may be switched off.
        with contextlib.suppress(ConfigurationError):
            for turn in open_turns:
                self.last = self.last or self.orchestrator.turn(turn.turn_id)
                note(f"turn {turn.turn_id} is {turn.status}: /follow {turn.turn_id}")

    def print_history(self, last: int | None = None) -> None:
        """Print the conversation's messages, or the newest of them."""
        messages = self.orchestrator.history(self.conversation_id)
        shown = messages[-last:] if last else messages
        if self._as_json:
            for message in shown:
                print_json({"type": "message", **message})
            return
        if not messages:
            note("no messages")
        if earlier := len(messages) - len(shown):
            note(f"{counted(earlier, 'earlier message')}: /history")
        for message in shown:
            console.print(message_text(message), soft_wrap=True)

    def _read(self) -> str | None:
        """The next line; None at the end of the input. Two Ctrl-C in a row end the chat."""
        for _ in range(2):
            try:
                return self._lines.read("you> ")
            except KeyboardInterrupt:
                errors.print()
                note("Ctrl-C again, Ctrl-D or /quit ends the chat")
        raise Leave(ExitCode.INTERRUPTED)

    def _take(self, line: str) -> None:
        if line.startswith("/") and not line.startswith("//"):
            name, _, rest = line[1:].partition(" ")
            command = COMMANDS.get(name)
            if command is None:
                self._fail(
                    usage_error(
                        f"there is no command /{name}: /help lists the commands; begin a message "
                        "with // to send one slash"
                    )
                )
                return
            try:
                command.run(self, rest.strip())
            except ServerUnavailable:
                raise
            except (AgentAPIError, CommandFailed) as error:
                self._fail(error)
        elif line:
            self._say(line.removeprefix("/") if line.startswith("//") else line)

    def _fail(self, error: AgentAPIError | CommandFailed) -> None:
        """Print an error; the chat continues."""
        self._code = show_error(error, as_json=self._as_json)

    def leave(self) -> None:
        """End the chat."""
        raise Leave(ExitCode.OK if self._lines.interactive else self._code)

    def _say(self, text: str) -> None:
        self._check_agent()
        parts, self.attachments = [text, *self.attachments], []
        try:
            self.last = self.orchestrator.enqueue(
                self.agent,
                parts if len(parts) > 1 else text,
                conversation_id=self.conversation_id,
                stream=True,
                user_id=self._user_id,
                tenant_id=self._tenant_id,
                context=self._context,
            )
        except ServerUnavailable:
            raise
        except AgentAPIError as error:
            if exit_code_of(error) is ExitCode.NOT_FOUND:
                raise
            self._fail(error)
            return
        self.follow(self.last)

    def _check_agent(self) -> None:
        census, self._census = self._census, None
        if census is None:
            return
        census.join(_CENSUS_WAIT)
        if self._serving is None:
            # Without the broker this is unknown; the turn itself will show what is wrong.
            return
        known = {name for names in self._serving.values() for name in names}
        if not known:
            note("no worker answers: the message waits until one is started (agentapi worker)")
        elif self.agent not in known:
            raise unknown_agent(self.agent, known)

    def _ask_workers(self) -> None:
        with contextlib.suppress(AgentAPIError):
            self._serving = agents_of_workers(self.orchestrator.settings)

    def follow(self, handle: TurnHandle, after: int = -1) -> None:
        """Show a turn until it ends, and ask about its calls. The first Ctrl-C cancels it.

        Raises:
            Leave: At the second Ctrl-C.
        """
        display: Display = JsonDisplay() if self._as_json else TextDisplay(self.orchestrator)
        watch = Watch(handle, after)
        cancelled = False
        while True:
            try:
                if self._watch(watch, display):
                    display.end(handle, handle.result())
                    self._code = ExitCode.OK
                return
            except KeyboardInterrupt:
                display.close()
                errors.print()
                if cancelled:
                    note(f"the turn may still be running: agentapi follow {handle.turn_id}")
                    raise Leave(ExitCode.INTERRUPTED) from None
                cancelled = True
                note(f"cancel: {handle.cancel()}; Ctrl-C again ends the chat")
            except TurnFailed as error:
                display.close()
                self._failed(error)
                return

    def _watch(self, watch: Watch, display: Display) -> bool:
        """Show progress; returns whether the turn has ended."""
        for found in watch.run():
            match found:
                case NotStarted():
                    display.wait_for_start(watch.handle)
                case Approvals():
                    if not self._decide(watch.handle, display, found.calls):
                        return False
                case _:
                    display.show(found)
        return True

    def _decide(self, handle: TurnHandle, display: Display, calls: Sequence[PendingCall]) -> bool:
        """Have the calls decided; returns whether the turn can continue."""
        if self._as_json:
            display.ask(handle.turn_id, calls)
        if self._decider.decide(handle, calls):
            return True
        if not self._lines.interactive:
            self._code = ExitCode.APPROVAL
        return False

    def _failed(self, error: TurnFailed) -> None:
        if exit_code_of(error) is ExitCode.NOT_FOUND:
            # The agent does not exist, so no further message could be answered.
            raise error
        self._fail(error)
