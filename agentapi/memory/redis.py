"""A history in Redis, shared by every process that uses the same conversation id."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import redis

from agentapi.archive.opening import open_archive
from agentapi.conversation.messages import Message, dumps, loads, to_dict
from agentapi.conversation.window import BYTES_PER_TOKEN, Window
from agentapi.errors import InvalidInput
from agentapi.ids import check_conversation_id, create_conversation_id
from agentapi.redis.connection import connect, translate_errors
from agentapi.redis.keys import conversation_keys
from agentapi.redis.scripts import Scripts
from agentapi.settings import Settings, load_settings
from agentapi.stores.redis.archiving import RedisArchiving
from agentapi.stores.redis.scripts import SCRIPTS
from agentapi.stores.refusals import other_tenant
from agentapi.urls import is_cluster

_NO_BLOBS: Final[Mapping[str, bytes]] = {}
_WHOLE = Window(messages=None)


@dataclass(frozen=True, slots=True)
class _Server:
    """The key of a connection: the settings that affect it."""

    url: str
    sentinel_master: str
    timeout: float
    archive_url: str | None
    settings: Settings = field(compare=False, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> _Server:
        return cls(
            settings.redis_url,
            settings.sentinel_master,
            settings.redis_timeout,
            settings.archive_url,
            settings,
        )


@lru_cache(maxsize=32)
def _connection(server: _Server) -> tuple[redis.Redis, Scripts]:
    """One pool per process and server, so that a conversation needs no connection of its own."""
    client = connect(server.settings)
    scripts = Scripts(client, SCRIPTS)
    archive = open_archive(server.settings)
    if archive is not None:
        scripts.bring_back = RedisArchiving(server.settings, client, scripts, archive).bring_back
    return client, scripts


class RedisMemory:
    """A conversation that outlives the process. Workers use the same keys and scripts."""

    def __init__(
        self,
        *,
        redis_url: str | None = None,
        conversation_id: str | None = None,
        user_id: str | None = None,
        tenant_id: str | None = None,
        ttl_seconds: float | None = None,
    ) -> None:
        """Open a conversation; nothing is read or written until it is used.

        Args:
            redis_url: The server; `AGENTAPI_REDIS_URL` when not given.
            conversation_id: Any non-empty text of at most 512 characters without control
                characters, such as ``user:42``; a new UUID when not given.
            user_id: The user who starts it.
            tenant_id: The tenant that owns it from its first message on.
            ttl_seconds: Idle seconds after which it is deleted, above 0; never when not given.

        Raises:
            InvalidConversationId: The id is not valid.
            InvalidInput: `ttl_seconds` is not above 0.
            ConfigurationError: The URL is not valid.
        """
        if ttl_seconds is not None and ttl_seconds <= 0:
            raise InvalidInput(f"ttl_seconds is {ttl_seconds}, expected seconds above 0, or None")
        self.conversation_id = (
            create_conversation_id()
            if conversation_id is None
            else check_conversation_id(conversation_id)
        )
        self.user_id = user_id
        self.tenant_id = tenant_id
        self.ttl_seconds = ttl_seconds
        overrides = {} if redis_url is None else {"redis_url": redis_url}
        if redis_url is not None and is_cluster(redis_url):
            # With a cluster, settings require a broker. A memory does not need one.
            overrides["broker_url"] = "memory://"
        self._settings = load_settings(**overrides)
        self._client, self._scripts = _connection(_Server.of(self._settings))
        self._keys = conversation_keys(self.conversation_id)

    def __repr__(self) -> str:
        return f"RedisMemory(conversation_id={self.conversation_id!r})"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages as plain dicts with `role` and `content`, oldest first.

        Raises:
            TenantMismatch: The conversation belongs to another tenant.
            StoreUnavailable: Redis cannot be reached.
        """
        return [to_dict(message) for message in self.load(_WHOLE)]

    def load(self, window: Window) -> Sequence[Message]:
        """Load the newest messages, at least as many as the window needs.

        Raises:
            TenantMismatch: The conversation belongs to another tenant.
            StoreUnavailable: Redis cannot be reached.
        """
        reply = self._call(
            "load",
            [self._keys.messages, self._keys.meta],
            [
                self.tenant_id or "",
                -1 if window.messages is None else window.messages,
                -1 if window.tokens is None else window.tokens * BYTES_PER_TOKEN,
            ],
        )
        return [loads(message) for message in reply[1]]

    def blobs(self, names: Sequence[str]) -> dict[str, bytes]:
        """Load bytes of attachments by name; missing ones are left out.

        Raises:
            StoreUnavailable: Redis cannot be reached.
        """
        with translate_errors(self._settings.redis_url):
            found = self._client.hmget(self._keys.blobs, list(names))
        return {n: data for n, data in zip(names, found, strict=True) if isinstance(data, bytes)}

    def append(self, messages: Sequence[Message], blobs: Mapping[str, bytes] = _NO_BLOBS) -> None:
        """Append the messages of one turn atomically, with the bytes of their attachments.

        Raises:
            TenantMismatch: The conversation belongs to another tenant.
            StoreUnavailable: Redis cannot be reached.
        """
        self._call(
            "append",
            [self._keys.messages, self._keys.meta, self._keys.inbox],
            [
                uuid.uuid4().hex,
                self.user_id or "",
                self.tenant_id or "",
                round((self.ttl_seconds or 0) * 1000),
                len(blobs),
                *chain.from_iterable(blobs.items()),
                *map(dumps, messages),
            ],
        )

    def reset(self) -> None:
        """Delete all messages.

        Raises:
            TenantMismatch: The conversation belongs to another tenant.
            StoreUnavailable: Redis cannot be reached.
        """
        self._call(
            "reset",
            [self._keys.messages, self._keys.meta, self._keys.inbox],
            [uuid.uuid4().hex, self.tenant_id or "", self._keys.turns],
        )

    def _call(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        with translate_errors(self._settings.redis_url):
            reply = self._scripts.call(name, keys, args)
        if reply[0] == b"tenant":
            raise other_tenant(self.conversation_id)
        return reply
