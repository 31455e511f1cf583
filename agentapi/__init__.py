"""Agents, tools, memories and turns: what a distributed runtime for LLM agents is made of."""

from agentapi.agent import Agent
from agentapi.attachments import File, Image
from agentapi.compaction import Compaction
from agentapi.errors import (
    AgentAPIError,
    ApprovalRequired,
    AttachmentRefused,
    BrokerUnavailable,
    CallNotPending,
    ConfigurationError,
    ContextTooLong,
    ConversationBusy,
    InvalidAgent,
    InvalidConversationId,
    InvalidInput,
    InvalidMessage,
    InvalidTool,
    NoProviderAvailable,
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
    TurnVetoed,
    UnknownAgent,
)
from agentapi.hooks import Hooks
from agentapi.ids import create_conversation_id
from agentapi.limits import Limits
from agentapi.memory import InMemoryMemory, Memory, RedisMemory
from agentapi.messages import AssistantMessage, Message, ToolCall, ToolMessage, Usage, UserMessage
from agentapi.providers import register_provider
from agentapi.settings import Settings, load_settings
from agentapi.tools import (
    Delegate,
    Handoff,
    McpServer,
    Tool,
    ToolContext,
    ToolFailed,
    delegate,
    handoff,
    tool,
)
from agentapi.turns import (
    Event,
    EventType,
    OnAbort,
    OnBusy,
    PendingCall,
    Turn,
    TurnResult,
    TurnStatus,
    Verdict,
)
from agentapi.window import Window

__all__ = [
    # Agents
    "Agent",
    "Compaction",
    "Delegate",
    "Handoff",
    "Hooks",
    "Limits",
    "McpServer",
    "Tool",
    "ToolContext",
    "ToolFailed",
    "Window",
    "delegate",
    "handoff",
    "register_provider",
    "tool",
    # Conversations
    "AssistantMessage",
    "File",
    "Image",
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
    "PendingCall",
    "Turn",
    "TurnResult",
    "TurnStatus",
    "Usage",
    "Verdict",
    # Settings
    "Settings",
    "load_settings",
    # Errors
    "AgentAPIError",
    "ApprovalRequired",
    "BrokerUnavailable",
    "CallNotPending",
    "ConfigurationError",
    "AttachmentRefused",
    "ContextTooLong",
    "ConversationBusy",
    "InvalidAgent",
    "InvalidConversationId",
    "InvalidInput",
    "InvalidMessage",
    "InvalidTool",
    "NoProviderAvailable",
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
    "TurnVetoed",
    "UnknownAgent",
]
