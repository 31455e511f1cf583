"""Joins the parts of a reply that was cut off and continued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentapi.conversation.messages import AssistantMessage


def joined(before: AssistantMessage, after: AssistantMessage) -> AssistantMessage:
    """One message from the parts of a reply.

    Args:
        before: The parts so far, joined.
        after: The next part. It determines how the reply ended and which tools it calls.
    """
    return replace(
        after,
        content=before.content + after.content,
        provider_data=_joined_data(before.provider_data, after.provider_data),
    )


def _joined_data(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The data that providers get back verbatim: their lists, concatenated.

    A provider that made only one of the parts would get back only that part. Its data is left out,
    so that it gets the text instead.
    """
    return {
        name: {key: [*before[name][key], *value] for key, value in data.items()}
        for name, data in after.items()
        if _are_lists(data) and _are_lists(before.get(name)) and before[name].keys() == data.keys()
    }


def _are_lists(data: object) -> bool:
    return isinstance(data, Mapping) and all(isinstance(value, list) for value in data.values())
