"""Agents, tools, memories and turns: what a distributed runtime for LLM agents is made of."""

from agentapi.agent import Agent
from agentapi.errors import (
    AgentAPIError,
    BrokerUnavailable,
    ConfigurationError,
    ConversationBusy,
    InvalidAgent,
    InvalidConversationId,
    InvalidInput,
    InvalidMessage,
    InvalidTool,
    ProviderError,
    ProviderMisconfigured,
    ProviderRejected,
    ProviderUnavailable,
    StoreUnavailable,
    TenantMismatch,
    TurnCancelled,
    TurnFailed,
    TurnNotFound,
    TurnNotRetryable,
    TurnTimeout,
    UnknownAgent,
)
from agentapi.ids import create_conversation_id
from agentapi.memory import InMemoryMemory, Memory, RedisMemory
from agentapi.messages import AssistantMessage, Message, ToolCall, ToolMessage, Usage, UserMessage
from agentapi.providers import register_provider
from agentapi.settings import Settings, load_settings
from agentapi.tools import Tool, ToolContext, tool
from agentapi.turns import Event, EventType, OnAbort, OnBusy, Turn, TurnResult, TurnStatus
from agentapi.window import Window

__all__ = [
    # Agents
    "Agent",
    "Tool",
    "ToolContext",
    "Window",
    "register_provider",
    "tool",
    # Conversations
    "AssistantMessage",
    "InMemoryMemory",
    "Memory",
    "Message",
    "RedisMemory",
    "ToolCall",
    "ToolMessage",
    "UserMessage",
    "create_conversation_id",
    # Turns
    "Event",
    "EventType",
    "OnAbort",
    "OnBusy",
    "Turn",
    "TurnResult",
    "TurnStatus",
    "Usage",
    # Settings
    "Settings",
    "load_settings",
    # Errors
    "AgentAPIError",
    "BrokerUnavailable",
    "ConfigurationError",
    "ConversationBusy",
    "InvalidAgent",
    "InvalidConversationId",
    "InvalidInput",
    "InvalidMessage",
    "InvalidTool",
    "ProviderError",
    "ProviderMisconfigured",
    "ProviderRejected",
    "ProviderUnavailable",
    "StoreUnavailable",
    "TenantMismatch",
    "TurnCancelled",
    "TurnFailed",
    "TurnNotFound",
    "TurnNotRetryable",
    "TurnTimeout",
    "UnknownAgent",
]
