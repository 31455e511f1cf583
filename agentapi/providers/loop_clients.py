"""Clients that belong to an event loop: one for each key and loop, shared by all users."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """Something with connections."""

    async def aclose(self) -> None:
        """Close them."""
        ...


K = TypeVar("K", bound=Hashable)
C = TypeVar("C", bound=Closable)


class LoopClients(Generic[K, C]):
    """Clients by key, for each event loop. A client lives as long as its loop, or until closed."""

    def __init__(self) -> None:
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[K, C]] = (
            weakref.WeakKeyDictionary()
        )
        self._holders: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, dict[K, weakref.WeakSet[object]]
        ] = weakref.WeakKeyDictionary()

    def get(self, key: K, make: Callable[[], C]) -> C:
        """The running loop's client. The first call creates it."""
        clients = self._clients.setdefault(asyncio.get_running_loop(), {})
        if key not in clients:
            clients[key] = make()
        return clients[key]

    def forget(self, key: K) -> None:
        """Drop the clients of all loops without closing them, which only their loops could do."""
        for clients in self._clients.values():
            clients.pop(key, None)

    def hold(self, holder: object, keys: Iterable[K]) -> None:
        """Record that a holder on the running loop uses these clients until `release`.

        Args:
            holder: The user of the clients. It is referenced weakly, so a freed object holds
                nothing.
            keys: The clients, whether they exist yet or not.
        """
        holders = self._holders.setdefault(asyncio.get_running_loop(), {})
        for key in keys:
            holders.setdefault(key, weakref.WeakSet()).add(holder)

    async def release(self, holder: object) -> None:
        """Close the running loop's clients that no other holder uses.

        Raises:
            Exception: The error of the first client that could not be closed. All others are
                closed.
        """
        loop = asyncio.get_running_loop()
        holders = self._holders.get(loop, {})
        unused = []
        for key, users in list(holders.items()):
            if holder in users:
                users.discard(holder)
                if not users:
                    del holders[key]
                    unused.append(key)
        clients = self._clients.get(loop, {})
        await close_all([clients.pop(key) for key in unused if key in clients])

    async def aclose(self) -> None:
        """Close the running loop's clients.

        Raises:
            Exception: The error of the first client that could not be closed. All others are
                closed.
        """
        loop = asyncio.get_running_loop()
        self._holders.pop(loop, None)
        await close_all(list(self._clients.pop(loop, {}).values()))


async def close_all(clients: Sequence[Closable]) -> None:
    """Close all clients in parallel, even if one of them fails; then raise the first error."""

    async def close(client: Closable) -> None:
        await client.aclose()

    ends = await asyncio.gather(*map(close, clients), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end
