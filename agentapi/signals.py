"""Signals of the runtime: a turn leaves the code that runs it without having ended.

They are not errors of the caller, so they do not inherit from `AgentAPIError`: code that turns
errors into a failed turn (`except AgentAPIError`) must let them pass.
"""

from __future__ import annotations

from typing import ClassVar


class RuntimeSignal(Exception):
    """Root of the runtime's signals.

    Attributes:
        code: Stable name, for logs.
    """

    code: ClassVar[str] = "signal"


class LeaseLost(RuntimeSignal):
    """Another worker owns the conversation now; this one's writes are refused."""

    code = "lease_lost"


class TurnParked(RuntimeSignal):
    """The turn waits for its provider without a worker, and continues by itself.

    Attributes:
        delay: Seconds until it continues.
        failures: How many times the model call has failed so far with errors worth a retry.
        lasted: Seconds since the first of these failures; None without one.
        kind: The kind of what it waits for.
        names: Names of what it waits for.
    """

    code = "parked"

    def __init__(
        self,
        message: str,
        *,
        delay: float,
        failures: int,
        lasted: float | None = None,
        kind: str = "provider",
        names: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.delay = delay
        self.failures = failures
        self.lasted = lasted
        self.kind = kind
        self.names = names
