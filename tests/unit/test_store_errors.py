"""What Redis refuses: some of it passes, some does not."""

from __future__ import annotations

import pytest
import redis
from redis import exceptions
from redis._parsers.base import BaseParser

from agentapi.errors import AgentAPIError, LoginRefused, StoreFault, StoreUnavailable
from agentapi.redis.connection import translate_errors

PASSING = (
    "OOM command not allowed when used memory > 'maxmemory'. script: abc, on @user_script:1.",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "NOREPLICAS Not enough good replicas to write.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "BUSY Redis is busy running a script.",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "NOSCRIPT No matching script.",
)
REFUSED = (
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOAUTH Authentication required.",
    "NOPERM this user has no permissions to run the 'evalsha' command",
)
FAULTS = (
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR user_script:12: attempt to index a nil value script: abc, on @user_script:12.",
    "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
)


def translated(error: Exception) -> AgentAPIError:
    with pytest.raises(AgentAPIError) as caught, translate_errors("redis://:hunter2@h:1/0"):
        raise error
    assert "hunter2" not in str(caught.value)
    assert "redis://:***@h:1/0" in str(caught.value)
    assert caught.value.__cause__ is error
    return caught.value


def said(text: str, *, in_pipeline: bool) -> Exception:
    """As redis-py raises what Redis said."""
    error: Exception = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    if in_pipeline:
        command = (
            f"Command # 1 (EVALSHA abc 1 key secret) of pipeline caused error: {error.args[0]}"
        )
        error.args = (command, *error.args[1:])
    return error


@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize("text", PASSING)
def test_what_passes(text: str, in_pipeline: bool) -> None:
    error = translated(said(text, in_pipeline=in_pipeline))
    assert type(error) is StoreUnavailable
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("Connection refused"),
        redis.TimeoutError("Timeout reading"),
        exceptions.MaxConnectionsError(),
        exceptions.MasterDownError("down"),
    ],
)
def test_a_connection_that_fails(error: Exception) -> None:
    assert type(translated(error)) is StoreUnavailable


@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize("text", REFUSED)
def test_a_login_is_waited_for_too(text: str, in_pipeline: bool) -> None:
    error = translated(said(text, in_pipeline=in_pipeline))
    assert type(error) is LoginRefused
    assert isinstance(error, StoreUnavailable)
    assert "correct AGENTAPI_REDIS_URL" in str(error)


@pytest.mark.parametrize("in_pipeline", [False, True])
@pytest.mark.parametrize("text", FAULTS)
def test_what_does_not_pass(text: str, in_pipeline: bool) -> None:
    error = translated(said(text, in_pipeline=in_pipeline))
    assert type(error) is StoreFault
    assert error.code == "store_fault"
    assert "secret" not in str(error)
    assert not isinstance(error, StoreUnavailable)
