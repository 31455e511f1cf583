"""What becomes of records in Redis by other releases, by people, and by failovers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import redis
from hypothesis import strategies as st

from tests.fuzz.mutations import Mutation, mutations
from tests.fuzz.values import CANARY, ODD, encode


class DamageKind(StrEnum):
    """What is done to a key."""

    CHANGE = "change"
    """A value of it is another."""
    NEWER = "newer"
    """A value of it is of a newer release."""
    ADD = "add"
    """A value that no release knows."""
    REMOVE = "remove"
    """A value."""
    DELETE = "delete"
    """The key."""
    RETYPE = "retype"
    """The key is of another type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """What is done to one key; places are counted modulo what there is."""

    key: int
    place: int
    kind: DamageKind
    mutation: Mutation
    value: str


def damages() -> st.SearchStrategy[Damage]:
    """Some."""
    return st.builds(
        Damage,
        key=st.integers(0, 30),
        place=st.integers(0, 60),
        kind=st.sampled_from((*[DamageKind.CHANGE] * 4, *DamageKind)),
        mutation=mutations(),
        value=st.sampled_from(sorted(ODD)),
    )


UNKNOWN_MEMBERS: Final = (
    b"\x01newkind:000-" + b"0" * 32,
    b"\x01start:nothing",
    b"\x01",
    b"",
    b"\xff\xfe",
    b"\x01deliver:999-zz",
)


def do_damage(client: Any, key: bytes, damage: Damage) -> None:
    """Do it."""
    kind = client.type(key)
    match damage.kind:
        case DamageKind.DELETE:
            client.delete(key)
        case DamageKind.RETYPE:
            client.delete(key)
            if kind == b"string":
                client.rpush(key, CANARY)
            else:
                client.set(key, CANARY)
        case _:
            _DAMAGED[kind](client, key, damage)


def _string(client: Any, key: bytes, damage: Damage) -> None:
    if damage.kind is DamageKind.REMOVE:
        client.delete(key)
    else:
        client.set(key, _changed(client.get(key), damage))


def _list(client: Any, key: bytes, damage: Damage) -> None:
    place = damage.place % client.llen(key)
    value = client.lindex(key, place)
    match damage.kind:
        case DamageKind.ADD:
            client.rpush(key, _odd(damage))
        case DamageKind.REMOVE:
            client.lrem(key, 1, value)
        case _:
            client.lset(key, place, _changed(value, damage))


def _hash(client: Any, key: bytes, damage: Damage) -> None:
    names = sorted(client.hkeys(key))
    name = names[damage.place % len(names)]
    match damage.kind:
        case DamageKind.ADD:
            client.hset(key, f"{CANARY}:{damage.place}", _odd(damage))
        case DamageKind.NEWER:
            client.hset(key, "v", 2)
        case DamageKind.REMOVE:
            client.hdel(key, name)
        case _:
            client.hset(key, name, _changed(client.hget(key, name), damage))


def _zset(client: Any, key: bytes, damage: Damage) -> None:
    members = client.zrange(key, 0, -1)
    member = members[damage.place % len(members)]
    match damage.kind:
        case DamageKind.ADD | DamageKind.NEWER:
            client.zadd(key, {UNKNOWN_MEMBERS[damage.place % len(UNKNOWN_MEMBERS)]: 1})
        case DamageKind.REMOVE:
            client.zrem(key, member)
        case _:
            score = (0, -1, 1e308, float("inf"), float("-inf"), 0.5)[damage.place % 6]
            client.zadd(key, {member: score})


def _stream(client: Any, key: bytes, damage: Damage) -> None:
    entries = client.xrange(key)
    entry, fields = entries[damage.place % len(entries)]
    match damage.kind:
        case DamageKind.ADD:
            client.xadd(key, {CANARY: _odd(damage)})
        case DamageKind.REMOVE:
            client.xdel(key, entry)
        case DamageKind.NEWER:
            client.xadd(key, {"type": "newer", "data": json.dumps({"text": CANARY})})
        case _:
            changed = _changed(fields.get(b"data", b"{}"), damage)
            client.xadd(key, {"type": fields.get(b"type", b"delta"), "data": changed})


_DAMAGED: Final = {
    b"string": _string,
    b"list": _list,
    b"hash": _hash,
    b"zset": _zset,
    b"stream": _stream,
}


def _changed(value: bytes, damage: Damage) -> bytes:
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict | list):
        return _odd(damage)
    if damage.kind is DamageKind.NEWER and isinstance(found, dict):
        return json.dumps({**found, "v": 2, CANARY: [CANARY]}).encode()
    return damage.mutation.text(found)


def _odd(damage: Damage) -> bytes:
    value = ODD[damage.value]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return encode(value).encode()


def keys_of(client: redis.Redis, *names: str) -> list[bytes]:
    """Keys whose names have one of these in them."""
    found = client.scan_iter(count=10_000)
    return sorted(key for key in found if any(name.encode() in key for name in names))
