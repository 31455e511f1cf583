"""Celery alone: a task that does nothing, and a typical hand-written agent loop.

It uses the thread pool, because a turn mostly waits for its model. Events, gossip and mingle are
off, and results are stored only if somebody waits for them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import redis
from celery import Celery
from celery.signals import worker_ready

from benchmarks.contenders import turn
from benchmarks.contenders.producer import serve

BARE = os.environ.get("BENCH_BARE") == "1"
TASK = "bench.turn"


class CeleryProducer:
    """Sends tasks over one connection."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def enqueue(self, conversations: Sequence[str]) -> None:
        """See `Producer.enqueue`."""
        for conversation in conversations:
            self._app.send_task(TASK, (conversation,), ignore_result=True)

    def ask(self, conversation: str) -> None:
        """See `Producer.ask`."""
        self._app.send_task(TASK, (conversation,)).get(timeout=60)

    def close(self) -> None:
        """See `Producer.close`."""
        self._app.close()


def make_app() -> Any:
    """Create the app for workers and producers."""
    app: Any = Celery("bench", broker=turn.REDIS_URL, backend=turn.REDIS_URL)
    app.conf.update(
        task_acks_late=False,
        broker_connection_retry_on_startup=True,
        result_backend_thread_safe=True,
        worker_cancel_long_running_tasks_on_connection_loss=True,
    )
    # Threads wait for a connection. With the default limit the pool refuses the 101st.
    pool = redis.BlockingConnectionPool.from_url(turn.REDIS_URL, max_connections=64)
    client = redis.Redis.from_pool(pool)

    def nothing(conversation: str) -> None:
        """Do nothing: the lower bound for any runtime on Celery."""

    def by_hand(conversation: str) -> str:
        return turn.run_turn(client, conversation)

    app.task(name=TASK)(nothing if BARE else by_hand)
    return app


def work(app: Any) -> None:
    """Run a worker."""
    worker_ready.connect(lambda **_: turn.say_ready(), weak=False)
    app.worker_main(
        [
            *("worker", "--pool=threads", f"--concurrency={turn.CONCURRENCY}"),
            *("--without-gossip", "--without-mingle", "--loglevel=WARNING"),
            f"--hostname={os.getpid()}@bench",
        ]
    )


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work(make_app())
    else:
        serve(CeleryProducer(make_app()))
