"""Every error of the project, one root, split by what the caller must do.

Each message says what was wrong, what was expected and what to do. `code` is the stable
name under which an error is stored in a failed turn and shown to clients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Final

LONGEST_WAIT: Final = 86_400.0
"""Seconds that a server's wish to be left alone is heeded at most."""


class AgentAPIError(Exception):
    """Root of all errors raised by `agentapi`, `workers` and `orchestrator`."""

    code: ClassVar[str] = "error"


# Fix the call: the input can never succeed as it is.


class InvalidInput(AgentAPIError, ValueError):
    """An argument is not acceptable; nothing was changed."""

    code = "invalid_input"


class InvalidConversationId(InvalidInput):
    """A conversation id is empty, too long, or has control characters."""

    code = "invalid_conversation_id"


class InvalidMessage(InvalidInput):
    """A message is empty, too large, or not text."""

    code = "invalid_message"


class InvalidTool(InvalidInput):
    """A function cannot be made into a tool (no schema, clashing or bad name)."""

    code = "invalid_tool"


class InvalidAgent(InvalidInput):
    """An agent's definition contradicts itself or names what does not exist."""

    code = "invalid_agent"


class UnknownAgent(InvalidInput):
    """No agent of that name is registered here."""

    code = "unknown_agent"


class TenantMismatch(AgentAPIError):
    """The conversation belongs to another tenant."""

    code = "tenant_mismatch"


# Fix the installation.


class ConfigurationError(AgentAPIError):
    """A setting is missing or wrong; says which, and what it should be."""

    code = "configuration"


# Wait, or try again later: nothing was lost.


class ConversationBusy(AgentAPIError):
    """The conversation's inbox is full, or it has turns and `on_busy` is ``reject``."""

    code = "conversation_busy"


class ServerUnavailable(AgentAPIError):
    """Redis or the broker cannot be reached; names the address, never the password."""

    code = "server_unavailable"


class StoreUnavailable(ServerUnavailable):
    """Redis cannot be reached or refuses to write; nothing is half done."""

    code = "store_unavailable"


class LoginRefused(StoreUnavailable):
    """Redis refuses the user or password, or what they may do: correct AGENTAPI_REDIS_URL. It is
    waited for like a Redis that is away, since passwords are also changed under way."""

    code = "login_refused"


class BrokerUnavailable(ServerUnavailable):
    """The broker cannot be reached."""

    code = "broker_unavailable"


# A fault, of this project or of what is stored: waiting does not help.


class StoreFault(AgentAPIError):
    """Redis refuses a command for what it is: a key of the wrong type, a fault in a script, a value
    that is too large."""

    code = "store_fault"


class UnreadableRecord(AgentAPIError):
    """Something stored is of a newer release, or is not what any release writes.

    Attributes:
        newer: Whether a newer release wrote it, so that another worker may be able to read it.
    """

    code = "unreadable"

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


# A turn's fate.


class TurnNotFound(AgentAPIError):
    """No turn of that id: never accepted, or older than the retention time."""

    code = "turn_not_found"


class TurnNotRetryable(AgentAPIError):
    """The turn has not failed, or what it did is in the history already."""

    code = "turn_not_retryable"


class CallNotPending(AgentAPIError):
    """The tool call waits for no decision: there is none, it was decided, or its turn ended."""

    code = "call_not_pending"


class ApprovalRequired(AgentAPIError):
    """A tool call needs a person's approval, and nobody can be asked here."""

    code = "approval_required"


class TurnTimeout(AgentAPIError, TimeoutError):
    """The turn did not end within the time the caller was ready to wait. It goes on."""

    code = "turn_timeout"


class TurnFailed(AgentAPIError):
    """The turn ended without a reply.

    Attributes:
        turn_id: The turn.
        error_code: `code` of the error that ended it, such as ``provider_rejected``.
    """

    code = "turn_failed"

    def __init__(self, message: str, *, turn_id: str = "", error_code: str = "") -> None:
        super().__init__(message)
        self.turn_id = turn_id
        self.error_code = error_code


class TurnCancelled(TurnFailed):
    """The turn was cancelled before it could reply."""

    code = "turn_cancelled"


class JournalBehind(AgentAPIError):
    """Steps that were recorded are not there any more, as after a failover that lost writes.

    Attributes:
        length: How many are there.
    """

    code = "journal_behind"

    def __init__(self, message: str, *, length: int) -> None:
        super().__init__(message)
        self.length = length


class LeaseLost(AgentAPIError):
    """Another worker owns the conversation now; this one's writes are refused."""

    code = "lease_lost"


class TurnParked(AgentAPIError):
    """The turn waits for its provider without a worker; it goes on by itself.

    Attributes:
        delay: Seconds until it does.
        failures: How often the model call has failed in passing so far.
    """

    code = "parked"

    def __init__(self, message: str, *, delay: float, failures: int) -> None:
        super().__init__(message)
        self.delay = delay
        self.failures = failures


class MaxStepsExceeded(AgentAPIError):
    """The agent asked for more model calls than `max_steps` allows."""

    code = "max_steps"


class BudgetExceeded(AgentAPIError):
    """The turn or its conversation has spent what the agent's limits allow."""

    code = "budget_exceeded"


class TurnVetoed(AgentAPIError):
    """A hook ended the turn; raise it in one, with the reason."""

    code = "vetoed"


class HookFailed(AgentAPIError):
    """A hook raised what is no veto, or returned what it should not."""

    code = "hook_failed"


class InvalidOutput(AgentAPIError):
    """The model's replies did not fit the agent's `output_type`, nor did the retries."""

    code = "invalid_output"


class DeadlineExceeded(AgentAPIError):
    """The turn ran longer than `turn_timeout`, or did not end by its own deadline."""

    code = "deadline"


class PoisonTurn(AgentAPIError):
    """The turn was claimed `max_attempts` times and ended none of them."""

    code = "poison"


# A model provider's refusals, by what the caller must do.


class ProviderError(AgentAPIError):
    """A model provider did not answer as asked.

    Attributes:
        provider: Name of the provider.
        status: HTTP status, or None when there was no answer.
    """

    code = "provider"

    def __init__(self, message: str, *, provider: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status


class ProviderUnavailable(ProviderError):
    """Try again: overloaded, rate limited, cut connection, server error.

    Attributes:
        retry_after: Seconds the server asked to wait, from 0 to `LONGEST_WAIT`; None when it did
            not say, or said what is no time (not a number, infinite).
    """

    code = "provider_unavailable"

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
        """What cannot be reached, in words."""
        return f"provider {self.provider!r}"


def _bounded(seconds: float | None) -> float | None:
    if seconds is None or not math.isfinite(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)


class ProviderHeld(ProviderUnavailable):
    """Wait: the provider was not asked, since the fleet's budget for it is used up or it asked
    the fleet to wait. That is no failure."""

    code = "provider_held"


class NoProviderAvailable(ProviderUnavailable):
    """Try again: of several providers, none answered.

    Attributes:
        causes: Why, for each that can be tried again.
    """

    def __init__(self, message: str, *, causes: Sequence[ProviderUnavailable]) -> None:
        super().__init__(message, provider=causes[0].provider, status=causes[0].status)
        self.causes = tuple(causes)


class ToolServerUnavailable(ProviderUnavailable):
    """Try again: a server of tools cannot be reached, or does not say which tools it has.

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
        """What cannot be reached, in words."""
        return f"tool server {self.server!r}"


class ProviderRejected(ProviderError):
    """Stop: the provider refuses this request and will refuse it again."""

    code = "provider_rejected"


class AttachmentRefused(ProviderRejected):
    """Say it in words, or use a provider that takes it: this one does not take the message's images
    or files."""

    code = "attachment_refused"


class ContextTooLong(ProviderRejected):
    """Shorten the window, or use a model that takes more: the request is too large for this one."""

    code = "context_too_long"


class ProviderMisconfigured(ProviderError, ConfigurationError):
    """Fix the configuration: missing or wrong API key, unknown model, no permission."""

    code = "provider_misconfigured"
