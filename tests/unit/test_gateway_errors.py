"""The mapping from errors to HTTP statuses."""

from __future__ import annotations

import pytest

from agentapi import errors
from agentapi.errors import AgentAPIError, TurnFailed
from orchestrator.gateway.http.errors import problem_of
from orchestrator.gateway.settings import load_gateway_settings

STATUS = {
    "UnknownAgent": 404,
    "InvalidMessage": 400,
    "InvalidConversationId": 400,
    "TenantMismatch": 404,
    "TurnNotFound": 404,
    "ConversationBusy": 409,
    "StoreUnavailable": 503,
    "LoginRefused": 503,
    "BrokerUnavailable": 503,
    "StoreFault": 500,
    "UnreadableRecord": 500,
    "TurnTimeout": 504,
    "ConfigurationError": 500,
}


@pytest.mark.parametrize(("name", "status"), STATUS.items())
def test_our_errors(name: str, status: int) -> None:
    error: AgentAPIError = getattr(errors, name)("why")
    problem = problem_of(error)
    assert (problem.status, problem.message) == (status, "why")
    assert set(problem.body()["error"]) == {"message", "type", "param", "code"}
    assert ("retry-after" in problem.headers) == (status == 503)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("provider_unavailable", 503),
        ("context_too_long", 400),
        ("deadline", 504),
        ("unknown_agent", 404),
        ("poison", 500),
    ],
)
def test_a_failed_turn_is_never_repeated_by_the_client(code: str, status: int) -> None:
    problem = problem_of(TurnFailed("why", turn_id="t", error_code=code))
    assert (problem.status, problem.code) == (status, code)
    assert problem.headers["x-should-retry"] == "false"


def test_of_other_errors_nothing_is_shown() -> None:
    problem = problem_of(RuntimeError("secret"))
    assert problem.status == 500
    assert "secret" not in problem.message


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("gateway.example", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert load_gateway_settings(gateway_host=host).is_loopback is loopback
