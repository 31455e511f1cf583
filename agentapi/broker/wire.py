"""What producers and workers agree on: task name, queues, message, Celery's settings.

Everything here is plain data: both sides share it without importing each other, and `agentapi` does
not import Celery.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from agentapi.ids import partition_of_turn
from agentapi.settings import Settings
from agentapi.tls import is_encrypted, rabbitmq_options, redis_options
from agentapi.turns.kinds import TurnKind, kind_of

TASK_NAME: Final = "agentapi.turn"
QUEUE_PREFIX: Final = "agentapi"

LOW_PRIORITY: Final = 9
"""Priority of turns that no client waits for; workers take others first. On Redis, 9 is the
lowest."""


def queue_names(queues: int) -> list[str]:
    """Names of all queues."""
    return [f"{QUEUE_PREFIX}.{number}" for number in range(queues)]


def queue_of(turn_id: str, queues: int) -> str:
    """The queue of a turn: its partition modulo the number of queues."""
    return queue_of_partition(partition_of_turn(turn_id), queues)


def queue_of_partition(partition: int, queues: int) -> str:
    """The queue of all turns of a partition."""
    return f"{QUEUE_PREFIX}.{partition % queues}"


def on_redis(settings: Settings) -> bool:
    """Whether the broker is Redis."""
    return settings.broker_url.partition("://")[0] in (
        *("redis", "rediss"),
        *("sentinel", "sentinels"),
    )


def on_rabbitmq(settings: Settings) -> bool:
    """Whether the broker is RabbitMQ."""
    return settings.broker_url.partition("://")[0] in ("amqp", "amqps", "pyamqp")


def transport_of(settings: Settings, module: str) -> str | None:
    """Which of a module's transports the broker needs; None for a broker other than Redis.

    Args:
        settings: Holds the broker's URL.
        module: Has a `Transport` and a `SentinelTransport`.
    """
    if not on_redis(settings):
        return None
    sentinel = settings.broker_url.startswith(("sentinel://", "sentinels://"))
    return f"{module}:{'SentinelTransport' if sentinel else 'Transport'}"


def task_message(
    conversation_id: str, turn_id: str, agent: str, settings: Settings
) -> dict[str, Any]:
    """Arguments of Celery's ``send_task`` for one turn: a wake-up that contains only ids.

    Flower shows the agent's name. Each wake-up has its own task id, because workers refuse an id
    for hours after its task was revoked.
    """
    return {
        "name": TASK_NAME,
        "args": (conversation_id, turn_id, agent),
        "task_id": f"{turn_id}.{secrets.token_hex(4)}",
        "queue": queue_of(turn_id, settings.queues),
        "priority": _priority(agent, settings),
        "shadow": agent,
        "argsrepr": repr((conversation_id, turn_id, agent)),
        "kwargsrepr": "{}",
        "ignore_result": True,
        # A list in Redis need not be declared, and declaring is a tenth of the cost of sending.
        "declare": () if on_redis(settings) else None,
        "retry": True,
        "retry_policy": {
            "max_retries": 2,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.5,
        },
    }


def _priority(agent: str, settings: Settings) -> int:
    low = kind_of(agent) is TurnKind.COMPACTION
    if on_rabbitmq(settings):
        # RabbitMQ takes the highest number first. Its quorum queues have two levels since version
        # 4, and none before.
        return 0 if low else LOW_PRIORITY
    return LOW_PRIORITY if low else 0


def turn_of_task(task_id: str) -> str:
    """The turn that a task of `task_message` wakes.

    Raises:
        InvalidInput: It is not the id of a wake-up.
    """
    turn_id = task_id.partition(".")[0]
    partition_of_turn(turn_id)
    return turn_id


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration, the same for producers and workers.

    A message is acknowledged when its task starts. The lease, not the broker, decides which worker
    runs a turn, so no visibility timeout or reconnect of the broker affects a long turn.
    """
    return {
        # kombu has no scheme of its own for sentinels with TLS.
        "broker_url": settings.broker_url.replace("sentinels://", "sentinel://"),
        "broker_use_ssl": _tls(settings),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        "broker_pool_acquire_timeout": settings.redis_timeout,
        "broker_connection_timeout": settings.redis_timeout,
        "broker_transport_options": _transport_options(settings),
        "task_acks_late": False,
        "task_ignore_result": True,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_create_missing_queues": True,
        "task_default_queue": queue_names(1)[0],
        # The sent event carries the task's name instead of the agent's. Flower shows the event that
        # arrives last, this one or the worker's.
        "task_send_sent_event": False,
        "task_always_eager": settings.eager,
        "task_eager_propagates": settings.eager,
        "worker_send_task_events": True,
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        # It applies to late acknowledgements, which are not used. If it is not set, Celery warns.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_concurrency": settings.concurrency,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_eta_task_limit": 1000,
        "enable_utc": True,
    }


def _tls(settings: Settings) -> dict[str, Any] | bool:
    """Options for TLS. Without them, kombu and py-amqp would trust any certificate."""
    if not is_encrypted(settings.broker_url):
        return False
    return redis_options(settings) if on_redis(settings) else rabbitmq_options(settings)


def _transport_options(settings: Settings) -> dict[str, Any]:
    if not on_redis(settings):
        return {}
    sentinels: dict[str, Any] = {}
    if settings.broker_url.startswith("sentinels://"):
        sentinels["sentinel_kwargs"] = {
            "ssl": True,
            **redis_options(settings),
            "socket_timeout": settings.redis_timeout,
            "socket_connect_timeout": min(settings.redis_timeout, 3),
        }
    return {
        **sentinels,
        "master_name": settings.sentinel_master,
        "socket_timeout": settings.redis_timeout,
        "socket_connect_timeout": min(settings.redis_timeout, 3),
        "socket_keepalive": True,
        "health_check_interval": 5,
        # Lists of a lower number are read first.
        "priority_steps": [0, LOW_PRIORITY],
        # If a worker took a wake-up and did not start it, the sweep sends it again sooner than
        # kombu would. A record of each message costs more than a turn's own scripts.
        "ack_emulation": False,
        "global_keyprefix": "agentapi:broker:",
    }
