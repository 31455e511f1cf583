"""Whom an agent asks: one provider, or several in order, each with a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentapi.errors import InvalidAgent
from agentapi.providers.builtin import providers


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelChoice:
    """A provider, and the model to ask it for.

    Attributes:
        provider: The provider's name.
        model: Its name of the model; the provider's default when None.
    """

    provider: str
    model: str | None = None

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}" if self.model else self.provider


def model_choices(
    agent: str, provider: str | Sequence[str], model: str | None
) -> tuple[ModelChoice, ...]:
    """What `Agent(provider=..., model=...)` means.

    Args:
        agent: Name of the agent, for errors.
        provider: ``"openai"``, ``"openai:gpt-5"``, or several of these, the first to ask first.
        model: The model of the first provider that names none.

    Raises:
        InvalidAgent: There is no such provider, one comes twice, or a model has no place.
    """
    entries = [provider] if isinstance(provider, str) else provider
    if not isinstance(entries, list | tuple) or not entries:
        raise InvalidAgent(
            f"agent {agent!r}: provider is {provider!r}, expected a name such as 'openai' or "
            "'openai:gpt-5', or a list of them"
        )
    choices = [_choice(agent, entry) for entry in entries]
    if model:
        open_places = [i for i, choice in enumerate(choices) if choice.model is None]
        if not open_places:
            raise InvalidAgent(
                f"agent {agent!r}: model={model!r} has no place, since every provider names its "
                f"own ({', '.join(map(str, choices))}): leave one of both out"
            )
        choices[open_places[0]] = replace(choices[open_places[0]], model=model)
    for choice in choices:
        if choices.count(choice) > 1:
            raise InvalidAgent(
                f"agent {agent!r}: provider {str(choice)!r} comes twice: the second would only "
                "fail as the first did; name another one, or another model"
            )
    return tuple(choices)


def check_options(agent: str, options: Mapping[str, Any], choices: Sequence[ModelChoice]) -> None:
    """Raises:
    InvalidAgent: What is under a provider's name is not a mapping of options.
    """
    for name in {choice.provider for choice in choices} & options.keys():
        if not isinstance(options[name], Mapping):
            raise InvalidAgent(
                f"agent {agent!r}: options[{name!r}] is a {type(options[name]).__name__}, expected "
                f"options for provider {name!r} alone, such as {{'temperature': 0}}"
            )


def options_for(
    choice: ModelChoice, options: Mapping[str, Any], choices: Sequence[ModelChoice]
) -> dict[str, Any]:
    """The options that one of an agent's providers gets: those for all, and its own, which win.

    Args:
        choice: The provider.
        options: Of the agent; what is under a provider's name is for that provider alone.
        choices: All providers of the agent.
    """
    names = {each.provider for each in choices}
    common = {key: value for key, value in options.items() if key not in names}
    return {**common, **options.get(choice.provider, {})}


def _choice(agent: str, entry: object) -> ModelChoice:
    if not isinstance(entry, str):
        raise InvalidAgent(
            f"agent {agent!r}: provider {entry!r} is a {type(entry).__name__}, expected text such "
            "as 'openai' or 'openai:gpt-5'"
        )
    # Models may have colons of their own: "openrouter:deepseek/deepseek-r1:free".
    name, colon, model = (part.strip() for part in entry.partition(":"))
    if colon and not model:
        raise InvalidAgent(
            f"agent {agent!r}: provider {entry!r} has no model behind its colon: expected such "
            f"as '{name or 'openai'}:gpt-5', or {name or 'openai'!r} for its default model"
        )
    providers.check(name)
    return ModelChoice(provider=name, model=model or None)
