"""Asks the workers which agents they serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agentapi import Settings

_REPLY_TIMEOUT: Final = 1.0


def agents_of_workers(settings: Settings) -> Mapping[str, tuple[str, ...]]:
    """The agents of each worker that answers, without the runtime's internal agents.

    Raises:
        BrokerUnavailable: The broker is out of reach.
    """
    # Celery takes half a second to import.
    from orchestrator.broker import ask_workers, producer_app

    app: Any = producer_app(settings)
    try:
        # A starting worker may miss the first question.
        replies = ask_workers(app, settings, "agents", timeout=_REPLY_TIMEOUT, tries=2)
    finally:
        app.close()
    return {worker: _names(answer) for reply in replies for worker, answer in reply.items()}


def _names(answer: object) -> tuple[str, ...]:
    """The names in a worker's answer, which may be an error or have another release's form."""
    from agentapi.agents.names import is_internal

    found = answer.get("agents") if isinstance(answer, dict) else None
    return tuple(name for name in found or () if isinstance(name, str) and not is_internal(name))
