"""The soak finds what grows, and only that."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import redis

from tests.soak.gauges import Series, count_keys, patterns
from tests.soak.picture import draw
from tests.soak.trend import Bound, Trend, trend

BOUND = Bound(absolute=10)


def made(value: Any) -> Trend:
    chance = random.Random(1)
    points = [(float(n), value(n / 1000) + chance.gauss(0, 2)) for n in range(1000)]
    found = trend(points, BOUND)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "level",
    [
        lambda part: 100,
        lambda part: 100 - 50 * part,
        lambda part: 100 + (500 if 0.5 < part < 0.6 else 0),
        lambda part: 100 + 300 * min(part, 0.2),
    ],
    ids=["flat", "shrinking", "a peak", "a warm-up"],
)
def test_what_does_not_grow(level: Any) -> None:
    assert not made(level).grows


@pytest.mark.parametrize(
    "level",
    [lambda part: 100 + 20 * part, lambda part: 20 * part + (300 if part < 0.1 else 0)],
    ids=["steadily", "behind a peak"],
)
def test_what_grows(level: Any) -> None:
    found = made(level)
    assert found.grows
    assert found.growth == pytest.approx(15, abs=2)


def test_too_little_to_say() -> None:
    assert trend([(0, 1), (1, 2)], BOUND) is None


def test_keys_that_are_left_behind_are_found(redis_url: str) -> None:
    client = redis.Redis.from_url(redis_url)
    waiting, over, gone, joined, left = (f"007-{digit * 32}" for digit in "12345")
    for message, turn in ((joined, waiting), (left, over)):
        client.hset(f"agentapi:{{007}}:t:{message}", mapping={"status": "merged", "into": turn})
    client.hset(f"agentapi:{{007}}:t:{waiting}", "status", "parked")
    client.hset(f"agentapi:{{007}}:t:{over}", "status", "completed")
    client.rpush(f"agentapi:{{007}}:t:{gone}:journal", "step")
    client.hset("agentapi:{007}:c:a:b:meta", "created", 1)
    client.hset("agentapi:{007}:c:idle:meta", mapping={"created": 1, "ttl": 1000})
    client.rpush("agentapi:{007}:c:idle:messages", json.dumps({}))
    client.set("agentapi:wake:me", 1)
    client.set("agentapi:wake:you", 1, ex=10)
    client.close()
    found = count_keys(redis_url)
    assert (found.expiring, found.lasting) == (1, 9)
    assert set(found.left_behind) == {
        f"agentapi:{{007}}:t:{over}",
        f"agentapi:{{007}}:t:{left}",
        f"agentapi:{{007}}:t:{gone}:journal",
        "agentapi:{007}:c:idle:meta",
        "agentapi:{007}:c:idle:messages",
        "agentapi:wake:me",
    }
    assert patterns(found.left_behind)["agentapi:{p}:t:<id>:journal"] == 1
    assert patterns(found.left_behind)["agentapi:{p}:t:<id>:turn"] == 2


def test_the_picture_shows_every_line() -> None:
    series = Series()
    for second in range(500):
        series.points["memory", "a & b"].append((second, 80 + second / 100))
        series.points["keys", "that expire"].append((second, 12.0))
    picture = draw(series, [100.0, 200.0])
    assert picture.count("<polyline") == 2
    assert "a &amp; b" in picture
    assert len(picture) < 20_000
