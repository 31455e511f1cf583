"""The mapping from errors to HTTP statuses."""

from __future__ import annotations

import pytest

from agentapi import errors
from agentapi.errors import AgentAPIError, TurnFailed
from orchestrator.gateway.http.errors import InvalidRequest, problem_of, public_text
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


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "agent 'a' replied 3 times without matching the requested JSON: raise "
            "Agent(output_retries=...), or describe the format in its prompt. The last rejection: "
            "'x' is not a number",
            "agent 'a' replied 3 times without matching the requested JSON. The last rejection: "
            "'x' is not a number",
        ),
        (
            "the reply of agent 'a' was cut off because it was too long: allow more output tokens "
            "in Agent(options=...), or let the model continue with on_incomplete='continue'",
            "the reply of agent 'a' was cut off because it was too long",
        ),
        (
            "agent 'b' is not registered here (registered: a): add its module to AGENTAPI_AGENTS "
            "on every worker",
            "agent 'b' is not registered here (registered: a)",
        ),
        (
            "openai was unavailable for 9 s and was tried once (patience: 5 s). Run the turn again "
            "with retry() once it is back. AGENTAPI_PROVIDER_PATIENCE and Agent(patience=...) set "
            "the patience. The last failure: 500",
            "openai was unavailable for 9 s and was tried once (patience: 5 s). The last failure: "
            "500",
        ),
        (
            "Redis at redis://127.0.0.1:6379/0 is out of reach: connection refused; is it running, "
            "and is AGENTAPI_REDIS_URL right? The turn may have been accepted: repeat it",
            "Redis is out of reach: connection refused. The turn may have been accepted: repeat it",
        ),
        ("it has 9 bytes, at most 5 (AGENTAPI_MAX_MESSAGE_BYTES)", "it has 9 bytes, at most 5"),
        ("the tool said: nothing; really.", "the tool said: nothing; really."),
    ],
)
def test_a_client_is_not_told_what_only_operators_can_do(said: str, shown: str) -> None:
    assert public_text(said, "invalid_output") == shown


def test_a_text_for_operators_alone_leaves_the_code() -> None:
    assert public_text("set AGENTAPI_X", "configuration") == "configuration"


def test_a_veto_is_told_as_it_is() -> None:
    assert public_text("say AGENTAPI_X", "vetoed") == "say AGENTAPI_X"


def test_the_gateways_own_errors_are_told_as_they_are() -> None:
    error = InvalidRequest("too large; ask an operator to raise AGENTAPI_GATEWAY_STREAMS")
    assert problem_of(error).message == str(error)
