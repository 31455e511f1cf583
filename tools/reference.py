"""Generates reference pages from the code: settings, the command line, HTTP.

`python -m tools.reference` writes the settings' descriptions into docs/settings.md and
deploy/agentapi.env.example, and the exit codes into docs/reference/cli.md. The other pages are
generated while the site is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import typer

from agentapi import Settings
from agentapi.providers.builtin import PROVIDER_KEYS
from orchestrator.cli.failures import MEANINGS
from orchestrator.cli.main import commands
from orchestrator.gateway.app import create_app
from orchestrator.gateway.settings import GatewaySettings, load_gateway_settings

ROOT: Final = Path(__file__).parents[1]
SETTINGS_PAGE: Final = ROOT / "docs/settings.md"
EXAMPLE_ENVIRONMENT: Final = ROOT / "deploy/agentapi.env.example"
SETTINGS: Final[type[Settings]] = GatewaySettings
"""The class with all settings."""
CLI_PAGE: Final = ROOT / "docs/reference/cli.md"
_TABLE = re.compile(r"(<!-- settings -->\n).*(\n<!-- /settings -->)", re.S)
_EXIT_CODES = re.compile(r"(<!-- exit codes -->\n).*(\n<!-- /exit codes -->)", re.S)


def default_of(name: str) -> str:
    """A setting's default, written as in an environment file."""
    field = SETTINGS.model_fields[name]
    if name == "broker_url":
        return "AGENTAPI_REDIS_URL"
    value: Any = field.default
    if value is None or value == ():
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def settings_table() -> str:
    """All settings as a Markdown table."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in SETTINGS.model_fields.items():
        default = f"`{default_of(name)}`" if default_of(name) else ""
        rows.append(f"| `AGENTAPI_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def settings_page(page: str) -> str:
    """The settings page with its table updated."""
    return _TABLE.sub(lambda found: found[1] + settings_table() + found[2], page)


def exit_codes_table() -> str:
    """The meanings of the exit codes of `agentapi`, as a Markdown table."""
    rows = ["| exit code | meaning |", "| --- | --- |"]
    rows += [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(rows)


def exit_codes_page(page: str) -> str:
    """The command line page with its table of exit codes updated."""
    return _EXIT_CODES.sub(lambda found: found[1] + exit_codes_table() + found[2], page)


def example_environment() -> str:
    """An environment file that lists every setting with its default."""
    head = (
        "# Every setting of agentapi with its default. Uncomment what you change; times are in "
        "seconds."
    )
    settings = [
        f"# {field.description}\n#AGENTAPI_{name.upper()}={default_of(name)}"
        for name, field in SETTINGS.model_fields.items()
    ]
    keys = "# Keys of model providers, for the workers.\n" + "\n".join(
        f"#{name}=" for name in PROVIDER_KEYS
    )
    return "\n\n".join([head, *settings, keys]) + "\n"


def cli_page() -> str:
    """A page of all commands of `agentapi` with their arguments and options."""
    return "\n\n".join(_commands("agentapi", typer.main.get_command(commands)))


def _commands(path: str, command: Any) -> Iterator[str]:
    subcommands: Mapping[str, Any] = getattr(command, "commands", {})
    if subcommands:
        for name, each in subcommands.items():
            yield from _commands(f"{path} {name}", each)
        return
    yield f"## `{path}`"
    yield _paragraph(command.help or "")
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    places = [_place(param) for param in shown if param.param_type_name == "argument"]
    yield f"```text\n{' '.join([path, *places, '[OPTIONS]'])}\n```"
    rows = [_parameter(param) for param in shown]
    if rows:
        yield "\n".join(["| parameter | default | meaning |", "| --- | --- | --- |", *rows])


def _place(param: Any) -> str:
    """An argument as shown in the command's usage."""
    return str(param.metavar or param.name.upper())


def _parameter(param: Any) -> str:
    if param.param_type_name == "argument":
        name = _place(param)
    else:
        name = ", ".join([*param.opts, *param.secondary_opts])
        kind = param.type_descriptor.annotation
        if not param.is_flag:
            name = f"{name} {_values(kind, param.metavar)}"
    default = param.default
    shown = "" if param.required or default in (None, "", False) else f"`{default}`"
    shown = "" if param.param_type_name == "option" and param.is_flag else shown
    return f"| `{_cell(name)}` | {_cell(shown)} | {_cell(param.help or '')} |"


def _values(kind: Any, metavar: str | None) -> str:
    """The values that an option accepts."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(each.value) for each in kind)
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    return metavar or str(kind.__name__).upper()


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document that the gateway serves at /openapi.json."""
    return create_app(load_gateway_settings()).openapi()


def http_page() -> str:
    """A page of all routes of the gateway, from its OpenAPI document."""
    document = openapi_document()
    parts: list[str] = []
    group = ""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["health"])[0]
            if tag != group:
                group = tag
                parts.append(f"## {_GROUPS.get(tag, tag.capitalize())}")
            parts.extend(_operation(method, path, operation, document["components"]["schemas"]))
    return "\n\n".join(parts)


_GROUPS: Final = {
    "openai": "OpenAI's API",
    "native": "The native API",
    "health": "Health",
}


def _operation(
    method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Iterator[str]:
    yield f"### `{method.upper()} {path}`"
    yield _paragraph(operation.get("description") or operation["summary"])
    rows = [
        f"| `{each['name']}` ({each['in']}) | {_type(each['schema'])} | "
        f"{_cell(each.get('description', ''))} |"
        for each in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    rows += _fields(body.get("schema", {}), schemas)
    if rows:
        yield "\n".join(["| parameter | type | meaning |", "| --- | --- | --- |", *rows])
    answers = [
        f"| {status} | {_cell(answer['description'])} |"
        for status, answer in sorted(operation["responses"].items())
    ]
    yield "\n".join(["| status | when |", "| --- | --- |", *answers])


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> list[str]:
    schema = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
    required: Sequence[str] = schema.get("required", ())
    return [
        f"| `{name}` (body{', required' if name in required else ''}) | {_type(of)} | "
        f"{_cell(of.get('description', ''))} |"
        for name, of in schema.get("properties", {}).items()
    ]


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if "anyOf" in schema:
        kinds = [_type(each) for each in schema["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    return f"{kind} of {_type(schema['items'])}" if "items" in schema else str(kind)


def _paragraph(text: str) -> str:
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs).replace("<", "&lt;")


def _cell(text: str) -> str:
    return " ".join(_paragraph(text).split()).replace("|", "\\|")


def main() -> None:
    """Update the generated files in the repository."""
    SETTINGS_PAGE.write_text(settings_page(SETTINGS_PAGE.read_text()))
    EXAMPLE_ENVIRONMENT.write_text(example_environment())
    CLI_PAGE.write_text(exit_codes_page(CLI_PAGE.read_text()))


if __name__ == "__main__":
    main()
