"""The fleet's shared state in Redis: one script per change, one round trip per call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis

from agentapi.admission.base import MEMORY, MINUTE, Ask, BreakerRule, Reason, Standing, Used, Wait
from agentapi.admission.scripts import SCRIPTS
from agentapi.redis.connection import connect, translate_errors
from agentapi.redis.scripts import Call, Scripts
from agentapi.settings import Settings

_RULE: Final = BreakerRule()


class RedisTraffic:
    """The `Traffic` of real workers."""

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis | None = None,
        *,
        rule: BreakerRule = _RULE,
        window: float = MINUTE,
    ) -> None:
        """Create the client; it connects at first use.

        Args:
            settings: Settings of the Redis server.
            client: An existing client to use.
            rule: When breakers open.
            window: Length of the window for limits, in seconds.
        """
        self._url = settings.redis_url
        self._client = client or connect(settings)
        self._scripts = Scripts(self._client, SCRIPTS)
        self._rule = rule
        self._window = _ms(window)

    def admit(self, ask: Ask) -> Wait | None:
        """See `Traffic.admit`."""
        reply = self._call(
            "admit",
            [_key(ask.provider, kind) for kind in ("state", "times", "charges")],
            [
                ask.call_id,
                ask.tokens,
                ask.most_requests,
                ask.most_tokens,
                self._window,
                int(not ask.alone),
                _ms(self._rule.probe_for),
            ],
        )
        if reply[0] == b"admitted":
            return None
        return Wait(reason=Reason(reply[1].decode()), seconds=int(reply[2]) / 1000)

    def settle(self, ask: Ask, used: int) -> None:
        """See `Traffic.settle`."""
        keys = [_key(ask.provider, kind) for kind in ("times", "charges")]
        self._call("settle", keys, [ask.call_id, ask.tokens, used, self._window])

    def failed(self, provider: str, call_id: str, *, hold: float | None, counts: bool) -> Standing:
        """See `Traffic.failed`."""
        rule = self._rule
        reply = self._call(
            "fail",
            [_key(provider, "state"), _key(provider, "failures")],
            [
                call_id,
                _ms(hold or 0),
                int(counts),
                rule.failures,
                _ms(rule.within),
                _ms(rule.open_for),
                _ms(rule.longest),
                _ms(MEMORY),
            ],
        )
        return _standing(reply)

    def answered(self, provider: str) -> Standing:
        """See `Traffic.answered`."""
        keys = [_key(provider, "state"), _key(provider, "failures")]
        return _standing(self._call("answer", keys, []))

    def standings(self, names: Sequence[str]) -> Mapping[str, Standing]:
        """See `Traffic.standings`."""
        with translate_errors(self._url):
            pipeline = self._client.pipeline(transaction=False)
            # Times are Redis's own, because workers' clocks differ.
            pipeline.time()
            for name in names:
                pipeline.hmget(_key(name, "state"), ["hold", "open"])
            (seconds, micros), *states = pipeline.execute()
        now = seconds * 1000 + micros // 1000
        return {
            name: Standing(
                held=max(int(hold or 0) - now, 0) / 1000,
                open=None if opens is None else (int(opens) - now) / 1000,
            )
            for name, (hold, opens) in zip(names, states, strict=True)
        }

    def used(self, names: Sequence[str]) -> Mapping[str, Used]:
        """See `Traffic.used`."""
        calls: list[Call] = [
            ([_key(name, "times"), _key(name, "charges")], [self._window]) for name in names
        ]
        with translate_errors(self._url):
            replies = self._scripts.call_many("used", calls) if calls else []
        return {
            name: Used(requests=int(requests), tokens=int(tokens))
            for name, (requests, tokens) in zip(names, replies, strict=True)
        }

    def close(self) -> None:
        """See `Traffic.close`."""
        self._client.close()

    def _call(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        with translate_errors(self._url):
            return self._scripts.call(script, keys, args)


def _key(provider: str, kind: str) -> str:
    """A key of a provider. Its name is the hash tag, so that one script can change all its keys."""
    return f"agentapi:provider:{{{provider}}}:{kind}"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _standing(reply: Sequence[Any]) -> Standing:
    held, shut, opens, *mine = (int(value) for value in reply)
    return Standing(held=held / 1000, open=opens / 1000 if shut else None, probes=mine == [1])
