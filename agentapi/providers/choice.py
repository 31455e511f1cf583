"""The models that an agent calls: one provider, or several in order, each with a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentapi.errors import InvalidAgent
from agentapi.providers.builtin import providers


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelChoice:
    """A provider and a model.

    Attributes:
        provider: The provider's name.
        model: The model; None for the provider's default.
    """

    provider: str
    model: str | None = None

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}" if self.model else self.provider


def model_choices(
    agent: str, provider: str | Sequence[str], model: str | None
) -> tuple[ModelChoice, ...]:
    """Convert `Agent(provider=..., model=...)`.

    Args:
        agent: Name of the agent, for errors.
        provider: ``"openai"``, ``"openai:gpt-5"``, or a list of these in order.
        model: The model for the first provider that does not include one.

    Raises:
        InvalidAgent: A provider is unknown or listed twice, or the model belongs to none.
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
                f"agent {agent!r}: model={model!r} applies to no provider, because each names its "
                f"own model ({', '.join(map(str, choices))}): remove one or the other"
            )
        choices[open_places[0]] = replace(choices[open_places[0]], model=model)
    for choice in choices:
        if choices.count(choice) > 1:
            raise InvalidAgent(
                f"agent {agent!r}: provider {str(choice)!r} is listed twice: the second one would "
                "fail like the first; choose another provider or model"
            )
    return tuple(choices)


def check_options(agent: str, options: Mapping[str, Any], choices: Sequence[ModelChoice]) -> None:
    """Check the options of an agent.

    Raises:
        InvalidAgent: The value under a provider's name is not a mapping of options.
    """
    for name in {choice.provider for choice in choices} & options.keys():
        if not isinstance(options[name], Mapping):
            raise InvalidAgent(
                f"agent {agent!r}: options[{name!r}] is a {type(options[name]).__name__}, expected "
                f"options for provider {name!r} only, such as {{'temperature': 0}}"
            )


def options_for(
    choice: ModelChoice, options: Mapping[str, Any], choices: Sequence[ModelChoice]
) -> dict[str, Any]:
    """Select the options for one of an agent's providers; its own options win over common ones.

    Args:
        choice: The provider.
        options: The agent's options; those under a provider's name are for that provider only.
        choices: All providers of the agent.
    """
    names = {each.provider for each in choices}
    common = {key: value for key, value in options.items() if key not in names}
    return {**common, **options.get(choice.provider, {})}


def _choice(agent: str, entry: object) -> ModelChoice:
    if not isinstance(entry, str):
        raise InvalidAgent(
            f"agent {agent!r}: provider {entry!r} is a {type(entry).__name__}, expected a string "
            "such as 'openai' or 'openai:gpt-5'"
        )
    # Model names may contain colons: "openrouter:deepseek/deepseek-r1:free".
    name, colon, model = (part.strip() for part in entry.partition(":"))
    if colon and not model:
        raise InvalidAgent(
            f"agent {agent!r}: provider {entry!r} has no model after its colon: expected something "
            f"like '{name or 'openai'}:gpt-5', or {name or 'openai'!r} for its default model"
        )
    providers.check(name)
    return ModelChoice(provider=name, model=model or None)
