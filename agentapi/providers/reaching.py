"""Error texts for an unreachable provider: its address, and the operating system's reason."""

from __future__ import annotations

from urllib.parse import urlsplit

from agentapi.errors import ProviderUnavailable
from agentapi.faults import causes_of, system_reason
from agentapi.providers.errors import broken

_CONNECTING = frozenset({"ConnectTimeout", "ConnectionTimeoutError", "PoolTimeout"})
"""Names of the errors by which HTTP clients say that there was no connection in time."""


def unreachable(
    provider: str, address: str, error: BaseException, *, secret: str, timeout: float
) -> ProviderUnavailable:
    """Build the error for a request that got no answer.

    Args:
        provider: Name of the provider.
        address: URL of its server.
        error: What the HTTP client raised.
        secret: The API key, which is removed from the text.
        timeout: Seconds without data after which the client gave up.
    """
    causes = list(causes_of(error))
    found = next((cause for cause in reversed(causes) if isinstance(cause, OSError)), None)
    where = f"at {shown_address(address)}"
    if found is not None and not isinstance(found, TimeoutError):
        return broken(provider, f"{where} cannot be reached: {system_reason(found)}", secret)
    if any(type(cause).__name__ in _CONNECTING for cause in causes):
        return broken(provider, f"{where} cannot be reached: no connection in time", secret)
    if found is not None or "Timeout" in type(error).__name__:
        return broken(provider, f"{where} did not answer within {timeout:g} s", secret)
    why = f"{type(causes[-1]).__name__} {causes[-1]}".strip()
    return broken(provider, f"{where} cannot be reached: {why}", secret)


def shown_address(url: str) -> str:
    """A URL without user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
