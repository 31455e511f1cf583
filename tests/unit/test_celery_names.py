"""The private names of Celery and kombu that we rely on: an upgrade that renames one fails here.

Both are pinned to 5.7. Where an upstream change would free us of a name, it is said beside it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any, Final

import pytest
from celery.concurrency.base import BasePool
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from kombu.transport import redis, virtual

from agentapi.broker import consumer_transport, producer_transport
from workers.celery_ext.consumer import TurnConsumer
from workers.celery_ext.pool import TurnPool
from workers.celery_ext.request import TurnRequest

PRIVATE: Final[dict[tuple[type[Any], type[Any]], set[str]]] = {
    # Takes several messages behind one BRPOP (kombu/transport/redis.py).
    (consumer_transport.Channel, redis.Channel): {
        "_brpop_read",
        "_brpop_sent_at",
        "_q_for_pri",
        "_queue_cycle",
    },
    (consumer_transport.Places, virtual.QoS): set(),
    # Keeps one client instead of one for each message (kombu/transport/redis.py).
    (producer_transport.Channel, redis.Channel): {"_create_client"},
    # Sends task events in groups (celery/worker/consumer/consumer.py).
    (TurnConsumer, Consumer): {"_flush_events"},
    (TurnPool, BasePool): {"_get_info"},
    (TurnRequest, Request): {"_context"},
}
"""Our class and the one that it extends: the private names of the latter that the former uses."""

ELSEWHERE: Final = [
    (virtual.Transport, "_deliver", ["message", "queue"]),
    (Consumer, "_update_prefetch_count", ["index"]),
]
"""Private methods that we call on objects of Celery's and kombu's, with their parameters."""

SIGNATURES: Final = [
    (redis.Channel, "_brpop_read", ["options"]),
    (redis.Channel, "_q_for_pri", ["queue", "pri"]),
    (redis.Channel, "_create_client", ["asynchronous"]),
    (Consumer, "_flush_events", []),
    (BasePool, "_get_info", []),
]


def private_names(ours: type[Any], theirs: type[Any]) -> set[str]:
    """Private names that the body of our class uses and that its base class has."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(ours)))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    source = "\n".join(
        inspect.getsource(base)
        for base in theirs.__mro__
        if base.__module__.startswith(("celery.", "kombu."))
    )
    assigned = set(map(_name_of_self, ast.walk(ast.parse(textwrap.dedent(source)))))
    return {
        name
        for name in used
        if name.startswith("_")
        and not name.startswith("__")
        and (hasattr(theirs, name) or name in assigned)
    }


def _name_of_self(node: ast.AST) -> str:
    match node:
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return name
        case _:
            return ""


@pytest.mark.parametrize(("ours", "theirs"), PRIVATE, ids=lambda each: each.__qualname__)
def test_every_private_name_is_listed_and_there(ours: type[Any], theirs: type[Any]) -> None:
    assert issubclass(ours, theirs)
    assert private_names(ours, theirs) == PRIVATE[ours, theirs]


@pytest.mark.parametrize(("owner", "name", "parameters"), [*ELSEWHERE, *SIGNATURES])
def test_methods_take_what_we_give(owner: type[Any], name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters)[1:] == parameters
