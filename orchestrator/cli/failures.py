"""Exit codes of commands, and errors as one line or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.exceptions import TyperException

from orchestrator.cli.console import errors, printable

if TYPE_CHECKING:
    from agentapi.errors import AgentAPIError


class ExitCode(IntEnum):
    """The meaning of a command's exit code."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    APPROVAL = 5
    TIMEOUT = 6
    CONFLICT = 7
    INTERRUPTED = 130


MEANINGS: Final[Mapping[ExitCode, str]] = {
    ExitCode.OK: "Success. To `cancel` a turn that has already ended is a success too.",
    ExitCode.FAILED: "The turn failed or was cancelled, `doctor` found a problem, or another error "
    "occurred.",
    ExitCode.USAGE: "Invalid usage: an unknown option, or an invalid argument or setting.",
    ExitCode.NOT_FOUND: "The turn, conversation, agent or key does not exist.",
    ExitCode.UNAVAILABLE: "Redis, the broker or the workers do not respond. Try again later.",
    ExitCode.APPROVAL: "The wait timed out, and the turn is waiting for an approval.",
    ExitCode.TIMEOUT: "The wait timed out before the turn ended. The turn continues.",
    ExitCode.CONFLICT: "The current state does not allow the command: a busy conversation, a call "
    "that is already decided, a turn that cannot be retried, another tenant's conversation.",
    ExitCode.INTERRUPTED: "Interrupted with Ctrl-C. The turn continues, unless `chat` has "
    "cancelled it.",
}
"""Documented in docs/reference/cli.md."""


class CommandFailed(Exception):
    """A command cannot do what the user asked for.

    Attributes:
        code: Stable name of the error, in JSON.
        exit_code: The process's exit code.
        turn_id: The turn at fault, or None.
    """

    def __init__(
        self, message: str, *, code: str, exit_code: ExitCode, turn_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code
        self.turn_id = turn_id


def usage_error(message: str) -> CommandFailed:
    """The error for arguments that cannot be combined or read."""
    return CommandFailed(message, code="usage", exit_code=ExitCode.USAGE)


def not_found(message: str, code: str) -> CommandFailed:
    """The error for something that does not exist."""
    return CommandFailed(message, code=code, exit_code=ExitCode.NOT_FOUND)


def interrupted(turn_id: str) -> CommandFailed:
    """The error for a wait that Ctrl-C ended. The turn continues."""
    return CommandFailed(
        f"the turn continues: agentapi follow {turn_id}",
        code="interrupted",
        exit_code=ExitCode.INTERRUPTED,
        turn_id=turn_id,
    )


def waits_for_approval(turn_id: str, *, told: bool) -> CommandFailed:
    """The error for a wait that ended before somebody decided.

    Args:
        turn_id: The turn.
        told: Whether the user was already told what the turn waits for and how to see it.
    """
    return CommandFailed(
        "no decision within the timeout; the turn is still waiting"
        if told
        else f"turn {turn_id} waits for approval: agentapi pending {turn_id}",
        code="approval_required",
        exit_code=ExitCode.APPROVAL,
        turn_id=turn_id,
    )


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the command must print JSON. Works before its arguments are parsed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


def report(error: Exception, *, as_json: bool) -> int:
    """Print the error that ended a command; returns the exit code.

    Args:
        error: What was raised.
        as_json: Whether to print a JSON object instead of a line for people.

    Raises:
        Exception: The error itself, if nobody expected it.
    """
    from agentapi.errors import AgentAPIError

    match error:
        case TyperException():
            return _report_usage(error, as_json=as_json)
        case typer.Abort():
            return ExitCode.INTERRUPTED
        case CommandFailed() | AgentAPIError():
            return show_error(error, as_json=as_json)
        case _:
            raise error


def serves_with_json_log(arguments: Sequence[str]) -> bool:
    """Whether the command runs until it is stopped and logs as JSON."""
    from agentapi.environment import variable

    serves = bool(arguments) and arguments[0] in ("worker", "gateway")
    return serves and variable("AGENTAPI_LOG_FORMAT") == "json"


def log_failure(error: Exception) -> int:
    """Log the error that ended a command; returns the exit code.

    Raises:
        Exception: The error itself, if nobody expected it.
    """
    import logging

    from agentapi.errors import AgentAPIError
    from agentapi.logs import line

    code: int
    match error:
        case typer.Abort():
            return ExitCode.INTERRUPTED
        case TyperException():
            name, why, code = "usage", error.format_message(), error.exit_code
        case CommandFailed():
            name, why, code = error.code, str(error), error.exit_code
        case AgentAPIError():
            name, why, code = error.code, str(error), exit_code_of(error)
        case _:
            raise error
    logging.getLogger("agentapi.cli").critical(line("command.failed", error=name, why=why))
    return code


def show_error(error: CommandFailed | AgentAPIError, *, as_json: bool) -> ExitCode:
    """Print an error to standard error; returns its exit code."""
    code = error.exit_code if isinstance(error, CommandFailed) else exit_code_of(error)
    if as_json:
        names = ("turn_id", "conversation_id", "error_code")
        found = {name: value for name in names if (value := getattr(error, name, None))}
        _print_json(str(error), {"code": error.code, **found}, code)
        return code
    if not isinstance(error, CommandFailed):
        errors.print(f"[red]{type(error).__name__}[/red]: ", end="")
    errors.print(printable(str(error)), markup=False, highlight=False, soft_wrap=True)
    return code


def _report_usage(error: TyperException, *, as_json: bool) -> int:
    if as_json:
        _print_json(error.format_message(), {"code": "usage"}, ExitCode(error.exit_code))
    else:
        from typer.rich_utils import rich_format_error

        rich_format_error(error)  # type: ignore[arg-type]
    return error.exit_code


def exit_code_of(error: Exception) -> ExitCode:
    """The exit code of an error of agentapi."""
    from agentapi import errors as known

    if isinstance(error, known.TurnFailed) and error.error_code == known.UnknownAgent.code:
        return ExitCode.NOT_FOUND
    kinds: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], ExitCode]] = (
        (known.TurnTimeout, ExitCode.TIMEOUT),
        ((known.TurnNotFound, known.UnknownAgent), ExitCode.NOT_FOUND),
        (known.ServerUnavailable, ExitCode.UNAVAILABLE),
        (known.ApprovalRequired, ExitCode.APPROVAL),
        (
            (
                known.ConversationBusy,
                known.CallNotPending,
                known.TurnNotForkable,
                known.TurnNotRetryable,
                known.TenantMismatch,
            ),
            ExitCode.CONFLICT,
        ),
        ((known.InvalidInput, known.ConfigurationError), ExitCode.USAGE),
    )
    return next((code for kind, code in kinds if isinstance(error, kind)), ExitCode.FAILED)


def _print_json(message: str, fields: Mapping[str, Any], exit_code: ExitCode) -> None:
    shown = {**fields, "message": message, "exit_code": int(exit_code)}
    sys.stderr.write(json.dumps({"error": shown}) + "\n")
