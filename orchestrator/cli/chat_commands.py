"""Commands of a chat: lines that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from orchestrator.cli.console import errors, note
from orchestrator.cli.failures import usage_error
from orchestrator.cli.messages import attachment_of
from orchestrator.wording import counted

if TYPE_CHECKING:
    from agentapi import File, Image
    from orchestrator.client import Orchestrator
    from orchestrator.handle import TurnHandle


class Chat(Protocol):
    """What commands need from a chat.

    Attributes:
        orchestrator: The producer.
        conversation_id: The conversation.
        attachments: Images and files for the next message.
        last: The newest turn of this chat.
    """

    orchestrator: Orchestrator
    conversation_id: str
    attachments: list[Image | File]
    last: TurnHandle | None

    def print_history(self, last: int | None = None) -> None:
        """Print the conversation's messages, or the newest of them."""
        ...

    def follow(self, handle: TurnHandle, after: int = -1) -> None:
        """Show a turn until it ends, and ask about its calls."""
        ...

    def leave(self) -> None:
        """End the chat."""
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        run: Runs the command with the text after its name.
        usage: Its arguments.
        help: What it does.
    """

    run: Callable[[Chat, str], None]
    usage: str
    help: str


def _help(chat: Chat, rest: str) -> None:
    for name, command in COMMANDS.items():
        _print_help(f"/{name} {command.usage}", command.help)
    _print_help("//text", "send a message that begins with a slash")


def _print_help(usage: str, text: str) -> None:
    errors.print(usage.ljust(16), text, markup=False, highlight=False, soft_wrap=True)


def _history(chat: Chat, rest: str) -> None:
    if rest and not (rest.isascii() and rest.isdigit() and int(rest)):
        raise usage_error("/history expects a number of messages, such as /history 5")
    chat.print_history(int(rest) if rest else None)


def _reset(chat: Chat, rest: str) -> None:
    deleted = chat.orchestrator.reset(chat.conversation_id)
    note(f"{counted(deleted, 'message')} deleted")


def _attach(chat: Chat, rest: str) -> None:
    if rest:
        chat.attachments.append(attachment_of(rest))
    for attachment in chat.attachments:
        note(f"with the next message: {_described(attachment)}")
    if not chat.attachments:
        note("nothing is attached; attach with /attach FILE")


def _described(attachment: Image | File) -> str:
    name = getattr(attachment, "name", None) or attachment.url or "image"
    size = f", {len(attachment.data)} bytes" if attachment.data is not None else ""
    return f"{name} ({attachment.media_type or 'type unknown'}{size})"


def _detach(chat: Chat, rest: str) -> None:
    note(f"{counted(len(chat.attachments), 'attachment')} removed")
    chat.attachments.clear()


def _cancel(chat: Chat, rest: str) -> None:
    note(f"cancel: {_last(chat).cancel()}")


def _retry(chat: Chat, rest: str) -> None:
    handle = _last(chat)
    newest = handle.info().last_event
    handle.retry()
    chat.follow(handle, newest)


def _follow(chat: Chat, rest: str) -> None:
    handle = chat.orchestrator.turn(rest) if rest else _last(chat)
    chat.follow(handle)


def _last(chat: Chat) -> TurnHandle:
    if chat.last is None:
        raise usage_error("there is no turn yet in this chat")
    return chat.last


def _quit(chat: Chat, rest: str) -> None:
    chat.leave()


COMMANDS: Final[Mapping[str, Command]] = {
    "help": Command(_help, "", "list the commands"),
    "history": Command(_history, "[N]", "print the conversation's messages, or the last N"),
    "reset": Command(_reset, "", "delete the conversation's messages"),
    "attach": Command(_attach, "FILE", "send an image, a file or a URL with the next message"),
    "detach": Command(_detach, "", "remove the attachments of the next message"),
    "cancel": Command(_cancel, "", "cancel the last turn, for example one that waits for approval"),
    "retry": Command(_retry, "", "retry the last turn if it failed"),
    "follow": Command(
        _follow, "[TURN]", "show a turn, the last one by default, and ask about its calls"
    ),
    "quit": Command(_quit, "", "end the chat"),
}
"""The commands by name, in the order of `/help`."""
