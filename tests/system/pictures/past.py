"""Turns of the last hour, so that curves and lists look as they do on a day of work."""

from __future__ import annotations

import math
import random
import time
from typing import Any, Final

import redis

from agentapi.ids import partition_of
from agentapi.redis.keys import list_keys, turns_prefix

HOUR: Final = 3_600
USERS: Final = ("ada", "grace", "alan", "edsger", "barbara", "donald", "hedy", "tim")
_AGENTS: Final = ("support", "support", "support", "billing", "writer")


def store_past(url: str, *, now: float | None = None) -> None:
    """Store ended turns of the last hour, as their scripts would leave them.

    Args:
        url: The shop's Redis.
        now: When the hour ends; this moment when not given.
    """
    chance = random.Random(11)
    client: Any = redis.Redis.from_url(url)
    pipeline = client.pipeline(transaction=False)
    end = time.time() if now is None else now
    for number, age in enumerate(_ages(chance)):
        at = round((end - age) * 1000)
        conversation = f"customer:{2000 + chance.randrange(400)}"
        partition = partition_of(conversation)
        turn_id = f"{partition:03d}-{chance.getrandbits(128):032x}"
        # A provider had ten bad minutes.
        failed = chance.random() < (0.25 if 1500 < age < 2100 else 0.01)
        status = "failed" if failed else "completed"
        took = round(chance.lognormvariate(0.4, 0.6) * 1000)
        fields: dict[str, Any] = {
            "v": 1,
            "kind": "agent",
            "conversation": conversation,
            "agent": chance.choice(_AGENTS),
            "input": "Where is my parcel?",
            "user": USERS[number % len(USERS)],
            "tenant": "",
            "status": status,
            "attempt": 1,
            "created": at,
            "started": at + 12,
            "ended": at + 12 + took,
            "steps": 0 if failed else chance.choice((1, 1, 3)),
        }
        if failed:
            fields["outcome"] = (
                '{"error": {"code": "provider_unavailable", '
                '"message": "provider \'acme\' answered 529: overloaded"}}'
            )
        pipeline.hset(f"{turns_prefix(partition)}{turn_id}", mapping=fields)
        pipeline.zadd(list_keys(partition, [status])[0], {turn_id: at})
    pipeline.execute()
    client.close()


def _ages(chance: random.Random) -> list[float]:
    """Seconds since each turn was accepted: more of them when people come back from lunch."""
    ages = []
    age = 45.0
    while age < HOUR:
        rate = 0.5 + 0.25 * math.sin(age / 520) + 0.12 * math.sin(age / 90)
        age += chance.expovariate(rate)
        ages.append(age)
    return ages
