"""The app that the ``celery flower`` command loads: the producers' side is enough to watch.

It sets defaults of Flower's options that fit turns. A ``FLOWER_...`` variable, a file given with
``--conf`` and the command line win over them, each over those before it.
"""

from __future__ import annotations

import ast
import contextlib
from typing import Any, Final

from celery import Celery
from flower.options import default_options
from kombu.entity import Queue

from agentapi import Settings, load_settings
from agentapi.broker.wire import queue_names
from orchestrator.broker import producer_app


def format_task(task: Any) -> Any:
    """Show a turn's conversation as its arguments: its name is the agent's, its id the turn's."""
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        task.args, _, _ = ast.literal_eval(task.args)
    return task


DEFAULTS: Final[dict[str, Any]] = {
    # Without basic_auth Flower shows its pages to everyone who reaches it.
    "address": "127.0.0.1",
    "tasks_columns": "name,state,args,result,received,runtime,uuid,worker",
    "format_task": format_task,
    "max_tasks": 20_000,
}


def flower_app(settings: Settings) -> Celery:
    """The app, with what Flower's Broker page needs: kombu's own transport, and our queues."""
    app = producer_app(settings)
    # Flower takes the broker's kind from the transport's name.
    app.conf.broker_transport = None
    app.conf.task_queues = [Queue(name) for name in queue_names(settings.queues)]
    return app


for _name, _value in DEFAULTS.items():
    setattr(default_options, _name, _value)

app = flower_app(load_settings())
