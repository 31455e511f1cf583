"""The app that ``celery flower`` loads. To watch workers, a producer's app is enough.

It sets defaults for Flower's options that suit turns. Variables ``FLOWER_...`` override them, a
file given with ``--conf`` overrides those, and the command line overrides all.
"""

from __future__ import annotations

import ast
import contextlib
from typing import Any, Final

from celery import Celery
from flower.options import default_options

from agentapi import Settings, load_settings
from agentapi.broker.queues import turn_queues
from orchestrator.broker import producer_app


def format_task(task: Any) -> Any:
    """Show the agent as the task's name, the turn's id as its id, and the conversation as its
    arguments."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        task.args, _, _ = ast.literal_eval(task.args)
    return task


DEFAULTS: Final[dict[str, Any]] = {
    # Without basic_auth, Flower shows its pages to anyone who can reach it.
    "address": "127.0.0.1",
    "tasks_columns": "name,state,args,result,received,runtime,uuid,worker",
    "format_task": format_task,
    "max_tasks": 20_000,
}


def flower_app(settings: Settings) -> Celery:
    """Create the app. Flower's Broker page needs kombu's own transport, and the queues."""
    app = producer_app(settings)
    # Flower derives the type of broker from the transport's name.
    app.conf.broker_transport = None
    app.conf.task_queues = turn_queues(settings)
    return app


for _name, _value in DEFAULTS.items():
    setattr(default_options, _name, _value)

app = flower_app(load_settings())
