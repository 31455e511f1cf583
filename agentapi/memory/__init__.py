"""Memories: the history of one conversation, in this process or in Redis."""

from typing import TYPE_CHECKING

from agentapi.lazy import lazily

if TYPE_CHECKING:
    from agentapi.memory.base import Memory
    from agentapi.memory.in_memory import InMemoryMemory
    from agentapi.memory.redis import RedisMemory

__all__ = ["InMemoryMemory", "Memory", "RedisMemory"]

__getattr__, __dir__ = lazily(
    __name__,
    {
        "agentapi.memory.base": ("Memory",),
        "agentapi.memory.in_memory": ("InMemoryMemory",),
        "agentapi.memory.redis": ("RedisMemory",),
    },
)
