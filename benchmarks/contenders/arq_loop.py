"""arq: an asyncio worker, which polls for jobs every 20 ms instead of every 500 ms."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import redis.asyncio
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func

from benchmarks.contenders import turn
from benchmarks.contenders.producer import serve

POLL = 0.02


async def take_turn(context: dict[str, Any], conversation: str) -> str:
    """The job."""
    return await turn.run_turn_async(context["client"], conversation)


async def begin(context: dict[str, Any]) -> None:
    """Called when a worker starts."""
    context["client"] = redis.asyncio.Redis.from_url(turn.REDIS_URL)
    turn.say_ready()


class ArqProducer:
    """Enqueues jobs from its own event loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._pool: Any = self._runner.run(create_pool(RedisSettings.from_dsn(turn.REDIS_URL)))

    def enqueue(self, conversations: Sequence[str]) -> None:
        """See `Producer.enqueue`."""

        async def run() -> None:
            for conversation in conversations:
                await self._pool.enqueue_job("take_turn", conversation)

        self._runner.run(run())

    def ask(self, conversation: str) -> None:
        """See `Producer.ask`."""

        async def run() -> None:
            job = await self._pool.enqueue_job("take_turn", conversation)
            await job.result(timeout=60, poll_delay=POLL)

        self._runner.run(run())

    def close(self) -> None:
        """See `Producer.close`."""
        self._runner.run(self._pool.aclose())
        self._runner.close()


def work() -> None:
    """Run a worker."""
    # Must be created on the loop that it runs on.
    with asyncio.Runner() as runner:
        runner.get_loop()
        worker = Worker(
            functions=[func(take_turn, keep_result=60)],
            redis_settings=RedisSettings.from_dsn(turn.REDIS_URL),
            on_startup=begin,
            max_jobs=turn.CONCURRENCY,
            poll_delay=POLL,
            handle_signals=False,
        )
        runner.run(worker.async_run())


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work()
    else:
        serve(ArqProducer())
