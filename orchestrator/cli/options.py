"""Arguments and options that several commands share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Final, Literal, TypeAlias

import typer

from orchestrator.cli.completion import agent_names

RUN: Final = "Run"
TALK: Final = "Talk to agents"
LOOK: Final = "Turns and conversations"
DECIDE: Final = "Approvals"
CHECK: Final = "Installation"
"""Headings of the commands in `agentapi --help`."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

AgentName = Annotated[
    str,
    typer.Argument(
        metavar="AGENT", help="Name of an agent that the workers know.", autocompletion=agent_names
    ),
]
TurnId = Annotated[str, typer.Argument(metavar="TURN", help="The turn's id.")]
ConversationId = Annotated[
    str, typer.Argument(metavar="CONVERSATION", help="The conversation's id.")
]
CallId = Annotated[
    str, typer.Argument(metavar="CALL", help="The call's id, from `agentapi pending`.")
]

InConversation = Annotated[
    str | None, typer.Option("--conversation", help="Id of the conversation to continue.")
]
User = Annotated[str | None, typer.Option(help="User id.")]
Tenant = Annotated[str | None, typer.Option(help="Tenant id.")]
ContextJson = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="JSON",
        help="Context for the agent's prompt, tools and hooks: a JSON object of its context type.",
    ),
]
By = Annotated[str | None, typer.Option(help="Your name; stored with the decision.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, help="Maximum wait in seconds; no limit by default.")
]

# Copies of agentapi's enumerations, whose import takes longer than all of `agentapi --help`.
# tests/unit/test_cli.py compares them.
OnBusyChoice: TypeAlias = Literal["enqueue", "reject", "interrupt", "replace", "merge", "steer"]
OnAbortChoice: TypeAlias = Literal["drop", "keep"]

OnBusyOption = Annotated[
    OnBusyChoice | None,
    typer.Option("--on-busy", help="What to do if the conversation has unfinished turns."),
]
OnAbortOption = Annotated[
    OnAbortChoice | None,
    typer.Option("--on-abort", help="What a cancelled or failed turn leaves in the history."),
]


def paragraphs(command: Callable[..., object] | None) -> str:
    """The help of a command: its docstring without the line breaks within paragraphs, which Typer
    would keep."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.getdoc(command) or "")
