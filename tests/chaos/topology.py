"""Which servers a random run can have, and which faults fit them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

USUAL: Final = -1
"""A count of faults that the servers decide: what they can suffer, they suffer so often."""

STORES: Final[Mapping[str, Mapping[str, int]]] = {
    "single": {"redis_restarts": 3},
    "sentinel": {"failovers": 3},
    "cluster": {"failovers": 3, "moves": 3, "stalls": 3},
}
"""What may be the store, and how often it usually suffers what only it can."""

BROKERS: Final[Mapping[str, Mapping[str, int]]] = {
    "store": {"broker_flushes": 3},
    "valkey": {"broker_outages": 3},
    "rabbitmq": {"broker_outages": 3},
}
"""The same for the broker."""

NEEDS: Final = {
    "redis_restarts": ("--store single", ("single",), tuple(BROKERS)),
    "failovers": ("--store sentinel or cluster", ("sentinel", "cluster"), tuple(BROKERS)),
    "moves": ("--store cluster", ("cluster",), tuple(BROKERS)),
    "stalls": ("--store cluster", ("cluster",), tuple(BROKERS)),
    "disks": ("--store single or sentinel", ("single", "sentinel"), tuple(BROKERS)),
    "broker_outages": ("--broker valkey or rabbitmq", tuple(STORES), ("valkey", "rabbitmq")),
}
"""Faults that not all servers can suffer: which ones they need, in words, stores and brokers."""


def usual(store: str, broker: str) -> dict[str, int]:
    """How often each fault usually happens whose count the servers decide."""
    counts = {name: 0 for kind in (STORES, BROKERS) for faults in kind.values() for name in faults}
    return {**counts, **STORES[store], **BROKERS[broker]}


def refusal(store: str, broker: str, counts: Mapping[str, int]) -> str:
    """Why these faults cannot happen to these servers, or nothing."""
    if store not in STORES:
        return f"no store {store!r}: expected --store {', '.join(STORES)}"
    if broker not in BROKERS:
        return f"no broker {broker!r}: expected --broker {', '.join(BROKERS)}"
    if store == "cluster" and broker == "store":
        return "Celery cannot use a cluster: --store cluster needs --broker valkey or rabbitmq"
    for fault, (wanted, stores, brokers) in NEEDS.items():
        if counts.get(fault, 0) > 0 and (store not in stores or broker not in brokers):
            return f"--{fault.replace('_', '-')} needs {wanted}"
    if counts.get("cuts", 0) > 0 and store != "single" and broker == "store":
        # Who is asked for the master, or for a slot, names the server itself, not a proxy.
        return "--cuts needs --store single, or a broker of its own"
    return ""
