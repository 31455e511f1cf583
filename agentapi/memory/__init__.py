"""Memories: the history of one conversation, in this process or in Redis."""

from agentapi.memory.base import Memory
from agentapi.memory.in_memory import InMemoryMemory
from agentapi.memory.redis import RedisMemory

__all__ = ["InMemoryMemory", "Memory", "RedisMemory"]
