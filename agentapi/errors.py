"""Every error of the project: one root, grouped by what the caller must do.

Each message says what was wrong, what was expected and what to do. `code` is the stable name under
which an error is stored in a failed turn and shown to clients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Final

# Not errors, but existing imports expect them here.
from agentapi.signals import LeaseLost as LeaseLost
from agentapi.signals import TurnParked as TurnParked

LONGEST_WAIT: Final = 86_400.0
"""Maximum seconds for which a server's `retry-after` is respected."""


class AgentAPIError(Exception):
    """Root of all errors raised by `agentapi`, `workers` and `orchestrator`.

    A message never contains a conversation's id, because it may be internal and clients must not
    see it. The id is a field, and `str()` adds it.

    Attributes:
        conversation_id: The affected conversation, by the store's id, or None.
        turn_id: The affected turn, or None.
    """

    code: ClassVar[str] = "error"
    conversation_id: str | None = None
    turn_id: str | None = None

    def __init__(
        self, message: str = "", *, conversation_id: str | None = None, turn_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.conversation_id = conversation_id
        self.turn_id = turn_id

    def without_ids(self) -> str:
        """The message alone."""
        return super().__str__()

    def __str__(self) -> str:
        message = self.without_ids()
        if self.conversation_id is None:
            return message
        return f"{message} (conversation_id={self.conversation_id!r})"


# Fix the call: this input can never succeed.


class InvalidInput(AgentAPIError, ValueError):
    """An argument is not valid; nothing was changed."""

    code = "invalid_input"


class InvalidConversationId(InvalidInput):
    """A conversation id is empty, too long, or has control characters."""

    code = "invalid_conversation_id"


class InvalidMessage(InvalidInput):
    """A message is empty, too large, or not text."""

    code = "invalid_message"


class InvalidTool(InvalidInput):
    """A function cannot become a tool (no schema, or an invalid or duplicate name)."""

    code = "invalid_tool"


class InvalidAgent(InvalidInput):
    """An agent's definition contradicts itself or refers to something that does not exist."""

    code = "invalid_agent"


class InvalidContext(InvalidInput):
    """The context of a turn is not a value of the agent's `context_type`, or cannot be stored."""

    code = "invalid_context"


class UnknownAgent(InvalidInput):
    """No agent with that name is registered here."""

    code = "unknown_agent"


class TenantMismatch(AgentAPIError):
    """The conversation belongs to another tenant."""

    code = "tenant_mismatch"


# Fix the installation.


class ConfigurationError(AgentAPIError):
    """A setting is missing or wrong; the message says which, and what is expected."""

    code = "configuration"


# Wait, or try again later: nothing is lost.


class ConversationBusy(AgentAPIError):
    """The conversation's inbox is full, or it has turns and `on_busy` is ``reject``."""

    code = "conversation_busy"


class ServerUnavailable(AgentAPIError):
    """Redis or the broker cannot be reached; the message has the address, never the password."""

    code = "server_unavailable"


class StoreUnavailable(ServerUnavailable):
    """Redis cannot be reached or refuses writes; nothing is left half done."""

    code = "store_unavailable"


class LoginRefused(StoreUnavailable):
    """Redis refuses the user, the password or their permissions: correct AGENTAPI_REDIS_URL.

    Workers wait as for an unreachable Redis, because passwords may change while they run.
    """

    code = "login_refused"


class BrokerUnavailable(ServerUnavailable):
    """The broker cannot be reached."""

    code = "broker_unavailable"


class ArchiveUnavailable(ServerUnavailable):
    """The archive (AGENTAPI_ARCHIVE_URL) cannot be reached, or refuses the login."""

    code = "archive_unavailable"


class ArchiveLost(ArchiveUnavailable):
    """The archive has lost a conversation or turn that moved to it."""

    code = "archive_lost"


# A bug in this project or a fault in the stored data: waiting does not help.


class StoreFault(AgentAPIError):
    """Redis refuses the command itself, for example because of a key's type or a value's size."""

    code = "store_fault"


class UnreadableRecord(AgentAPIError):
    """A stored record comes from a newer release, or from no release at all.

    Attributes:
        newer: Whether a newer release wrote it; then another worker may be able to read it.
    """

    code = "unreadable"

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


# How a turn ends.


class TurnNotFound(AgentAPIError):
    """No turn has that id: it was never accepted, or its retention has ended."""

    code = "turn_not_found"


class TurnNotRetryable(AgentAPIError):
    """The turn has not failed: only failed turns run again."""

    code = "turn_not_retryable"


class TurnNotForkable(AgentAPIError):
    """The turn cannot be run again from that step: the required data is not stored."""

    code = "turn_not_forkable"


class CallNotPending(AgentAPIError):
    """The call is not waiting for a decision: it does not exist, is decided, or its turn ended."""

    code = "call_not_pending"


class ApprovalRequired(AgentAPIError):
    """A tool call needs approval, which cannot be requested here."""

    code = "approval_required"


class TurnTimeout(AgentAPIError, TimeoutError):
    """The turn did not end within the caller's timeout. It keeps running."""

    code = "turn_timeout"


class TurnFailed(AgentAPIError):
    """The turn ended without a reply.

    Attributes:
        turn_id: The turn.
        error_code: `code` of the error that ended it, such as ``provider_rejected``.
    """

    code = "turn_failed"

    def __init__(self, message: str, *, turn_id: str = "", error_code: str = "") -> None:
        super().__init__(message, turn_id=turn_id)
        self.error_code = error_code


class TurnCancelled(TurnFailed):
    """The turn was cancelled before it could reply."""

    code = "turn_cancelled"


class JournalBehind(AgentAPIError):
    """Recorded steps are missing, for example after a failover that lost writes.

    Attributes:
        length: Number of remaining steps.
    """

    code = "journal_behind"

    def __init__(self, message: str, *, length: int) -> None:
        super().__init__(message)
        self.length = length


class MaxStepsExceeded(AgentAPIError):
    """The agent asked for more model calls than `max_steps` allows."""

    code = "max_steps"


class BudgetExceeded(AgentAPIError):
    """The turn or its conversation has spent what the agent's limits allow."""

    code = "budget_exceeded"


class TurnVetoed(AgentAPIError):
    """A hook ended the turn. Raise this in a hook, with the reason."""

    code = "vetoed"


class HookFailed(AgentAPIError):
    """A hook raised something other than `TurnVetoed`, or returned a value of the wrong type."""

    code = "hook_failed"


class PromptFailed(AgentAPIError):
    """A function given as `system_prompt` raised an error, took too long, or returned no text."""

    code = "prompt_failed"


class ToolsFailed(AgentAPIError):
    """A function given as `tools` raised an error, took too long, or returned no tools."""

    code = "tools_failed"


class ClientToolRefused(InvalidInput):
    """A client tool is not valid, or has the name of one of the agent's own tools."""

    code = "client_tool_refused"


class InvalidOutput(AgentAPIError):
    """The model's replies do not match the agent's `output_type`, even after retries."""

    code = "invalid_output"


class IncompleteReply(AgentAPIError):
    """The model did not complete its reply, and the agent's `on_incomplete` is ``fail``.

    Attributes:
        finish_reason: Why: ``length``, ``content_filter`` or ``refusal``.
    """

    code = "incomplete_reply"

    def __init__(self, message: str, *, finish_reason: str = "") -> None:
        super().__init__(message)
        self.finish_reason = finish_reason


class DeadlineExceeded(AgentAPIError):
    """The turn ran longer than `turn_timeout`, or missed its own deadline."""

    code = "deadline"


class PoisonTurn(AgentAPIError):
    """The turn was claimed `max_attempts` times, and its process died each time."""

    code = "poison"


# Refusals of model providers, grouped by what the caller must do.


class ProviderError(AgentAPIError):
    """A model call failed.

    Attributes:
        provider: Name of the provider.
        status: HTTP status, or None without a response.
    """

    code = "provider"

    def __init__(self, message: str, *, provider: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status


class ProviderUnavailable(ProviderError):
    """Try again: overloaded, rate limited, connection lost, server error.

    Attributes:
        retry_after: Seconds that the server asked to wait, from 0 to `LONGEST_WAIT`; None if it
            gave no finite number.
        probe_after: Seconds after which the caller must probe the provider on behalf of the whole
            fleet; None for all other callers.
    """

    code = "provider_unavailable"
    probe_after: float | None = None

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, provider=provider, status=status)
        self.retry_after = _bounded(retry_after)

    @property
    def source(self) -> str:
        """A short description of what cannot be reached."""
        return f"provider {self.provider!r}"


def _bounded(seconds: float | None) -> float | None:
    if seconds is None or not math.isfinite(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)


class ProviderAway(ProviderUnavailable):
    """Wait: the provider was not called, because the fleet knows that it is unavailable. One call
    at a time finds out whether it is back."""


class ProviderHeld(ProviderUnavailable):
    """Wait: the provider was not called, because the fleet's budget for it is used up or it asked
    the fleet to wait. This does not count as a failure.

    Attributes:
        budget: Whether the fleet's own budget is used up.
    """

    code = "provider_held"

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        retry_after: float | None = None,
        budget: bool = False,
    ) -> None:
        super().__init__(message, provider=provider, retry_after=retry_after)
        self.budget = budget


class NoProviderAvailable(ProviderUnavailable):
    """Try again: none of several providers answered.

    Attributes:
        causes: The errors of the providers that are worth another attempt.
    """

    def __init__(self, message: str, *, causes: Sequence[ProviderUnavailable]) -> None:
        super().__init__(message, provider=causes[0].provider, status=causes[0].status)
        self.causes = tuple(causes)


class ToolServerUnavailable(ProviderUnavailable):
    """Try again: a tool server (MCP) cannot be reached, or does not list its tools.

    A turn waits for it as for a provider, and fails with the same code.

    Attributes:
        server: Name of the server.
    """

    def __init__(
        self,
        message: str,
        *,
        server: str,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, retry_after=retry_after)
        self.server = server

    @property
    def source(self) -> str:
        """A short description of what cannot be reached."""
        return f"tool server {self.server!r}"


class ProviderRejected(ProviderError):
    """Stop: the provider refuses this request, and will refuse it again."""

    code = "provider_rejected"


class AttachmentRefused(ProviderRejected):
    """Send text instead, or use another provider: this one does not accept the message's images or
    files."""

    code = "attachment_refused"


class ContextTooLong(ProviderRejected):
    """Shorten the message, or use a model with a larger context: the request is too large even
    without the history.

    A provider raises it for each request that is too large. The runtime then asks again with less
    of the history; the turn fails only when nothing more can be left out.

    Attributes:
        limit: Tokens that the model accepts, if the provider said so.
        counted: Tokens that the provider counted, if it said so.
        of_model: Whether it is the model's limit; if so, the conversation remembers it.
    """

    code = "context_too_long"

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        limit: int | None = None,
        counted: int | None = None,
        of_model: bool = True,
    ) -> None:
        super().__init__(message, provider=provider, status=status)
        self.limit = limit
        self.counted = counted
        self.of_model = of_model


class ProviderMisconfigured(ProviderError, ConfigurationError):
    """Fix the configuration: wrong or missing API key, unknown model, no permission."""

    code = "provider_misconfigured"
