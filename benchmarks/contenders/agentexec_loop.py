"""agentexec as its README recommends: a pool of processes that each run one task at a time, with
the activity in PostgreSQL."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import agentexec as ax
import redis.asyncio
from agentexec.core.db import configure_engine
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.contenders import turn
from benchmarks.contenders.producer import serve

TASK = "turn"


class Context(BaseModel):
    """A task's input."""

    conversation: str


class Reply(BaseModel):
    """A task's result."""

    text: str


_client: Any = None


async def take_turn(agent_id: UUID, context: Context) -> Reply:
    """The task."""
    global _client
    _client = _client or redis.asyncio.Redis.from_url(turn.REDIS_URL)
    return Reply(text=await turn.run_turn_async(_client, context.conversation))


class AgentexecProducer:
    """Enqueues tasks from its own event loop."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        configure_engine(create_async_engine(turn.DATABASE_URL))

    def enqueue(self, conversations: Sequence[str]) -> None:
        """See `Producer.enqueue`."""

        async def run() -> None:
            for conversation in conversations:
                await ax.enqueue(TASK, Context(conversation=conversation))

        self._runner.run(run())

    def ask(self, conversation: str) -> None:
        """See `Producer.ask`."""

        async def run() -> None:
            task = await ax.enqueue(TASK, Context(conversation=conversation))
            await ax.get_result(task, timeout=60)

        self._runner.run(run())

    def close(self) -> None:
        """See `Producer.close`."""
        self._runner.close()


async def work() -> None:
    """Run the pool's parent process, as `agentexec run --create-tables` does."""
    engine = create_async_engine(turn.DATABASE_URL)
    async with engine.begin() as connection:
        await connection.run_sync(ax.Base.metadata.create_all)
    pool: Any = ax.Pool(engine=engine)
    pool.add_task(TASK, take_turn)
    running = asyncio.ensure_future(pool.start())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    await running


if __name__ == "__mp_main__":
    # A worker process of the pool imports this module before it takes tasks.
    turn.say_ready()

if __name__ == "__main__":
    if sys.argv[1] == "worker":
        asyncio.run(work())
    else:
        serve(AgentexecProducer())
