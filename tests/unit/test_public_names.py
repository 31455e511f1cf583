"""Names that users import and codes that they match: none may go or change.

A name is added here when it is published, and removed only with a major version.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Final

import pytest

from agentapi import Agent, errors

NAMES: Final = {
    "agentapi": [
        "Agent",
        "AgentAPIError",
        "ApprovalRequired",
        "AssistantMessage",
        "AttachmentRefused",
        "BrokerUnavailable",
        "CallNotPending",
        "ClientTool",
        "ClientToolRefused",
        "Compaction",
        "ConfigurationError",
        "ContextTooLong",
        "ConversationBusy",
        "Delegate",
        "Event",
        "EventType",
        "File",
        "Handoff",
        "Hooks",
        "Image",
        "InMemoryMemory",
        "InvalidAgent",
        "InvalidContext",
        "InvalidConversationId",
        "InvalidInput",
        "InvalidMessage",
        "InvalidTool",
        "Limits",
        "LoginRefused",
        "McpServer",
        "Memory",
        "Message",
        "NoProviderAvailable",
        "OnAbort",
        "OnBusy",
        "PendingCall",
        "PromptFailed",
        "ProviderError",
        "ProviderMisconfigured",
        "ProviderRejected",
        "ProviderUnavailable",
        "RedisMemory",
        "RequestPolicy",
        "Settings",
        "StoreFault",
        "StoreUnavailable",
        "TenantMismatch",
        "Tool",
        "ToolCall",
        "ToolContext",
        "ToolFailed",
        "ToolMessage",
        "ToolsFailed",
        "Turn",
        "TurnCancelled",
        "TurnContext",
        "TurnFailed",
        "TurnNotFound",
        "TurnNotRetryable",
        "TurnResult",
        "TurnStatus",
        "TurnTimeout",
        "TurnVetoed",
        "UnknownAgent",
        "UnreadableRecord",
        "Usage",
        "UserMessage",
        "Verdict",
        "Window",
        "create_conversation_id",
        "delegate",
        "handoff",
        "load_settings",
        "register_provider",
        "tool",
    ],
    "agentapi.providers": ["ModelRequest", "ModelResponse", "Provider", "register_provider"],
    "agentapi.providers.offline": ["OfflineProvider"],
    "agentapi.testing": [
        "Act",
        "ScriptEnded",
        "ScriptedProvider",
        "after",
        "assert_called",
        "assert_completed",
        "assert_failed",
        "assert_not_called",
        "assert_valid_history",
        "call",
        "calls",
        "says",
        "scripted",
        "tool_calls",
    ],
    "agentapi.testing.plugin": ["eager_orchestrator", "no_live_model_calls", "script"],
    "orchestrator": [
        "Ask",
        "AsyncGatherHandle",
        "AsyncOrchestrator",
        "AsyncTurnHandle",
        "CancelOutcome",
        "GatherHandle",
        "Orchestrator",
        "TurnHandle",
        "TurnRequest",
    ],
    "orchestrator.gateway": ["create_app", "serve"],
    "workers.app": ["create_app"],
    "workers.celery": ["app"],
}

CODES: Final = {
    "AgentAPIError": "error",
    "ApprovalRequired": "approval_required",
    "AttachmentRefused": "attachment_refused",
    "BrokerUnavailable": "broker_unavailable",
    "BudgetExceeded": "budget_exceeded",
    "CallNotPending": "call_not_pending",
    "ConfigurationError": "configuration",
    "ContextTooLong": "context_too_long",
    "ConversationBusy": "conversation_busy",
    "DeadlineExceeded": "deadline",
    "HookFailed": "hook_failed",
    "InvalidAgent": "invalid_agent",
    "InvalidContext": "invalid_context",
    "InvalidConversationId": "invalid_conversation_id",
    "InvalidInput": "invalid_input",
    "InvalidMessage": "invalid_message",
    "InvalidOutput": "invalid_output",
    "InvalidTool": "invalid_tool",
    "LoginRefused": "login_refused",
    "MaxStepsExceeded": "max_steps",
    "NoProviderAvailable": "provider_unavailable",
    "PoisonTurn": "poison",
    "PromptFailed": "prompt_failed",
    "ProviderError": "provider",
    "ProviderHeld": "provider_held",
    "ProviderMisconfigured": "provider_misconfigured",
    "ProviderRejected": "provider_rejected",
    "ProviderUnavailable": "provider_unavailable",
    "ServerUnavailable": "server_unavailable",
    "StoreFault": "store_fault",
    "StoreUnavailable": "store_unavailable",
    "TenantMismatch": "tenant_mismatch",
    "ToolsFailed": "tools_failed",
    "TurnCancelled": "turn_cancelled",
    "TurnFailed": "turn_failed",
    "TurnNotFound": "turn_not_found",
    "TurnNotRetryable": "turn_not_retryable",
    "TurnTimeout": "turn_timeout",
    "TurnVetoed": "vetoed",
    "UnknownAgent": "unknown_agent",
    "UnreadableRecord": "unreadable",
}

AGENT: Final = [
    "name",
    "system_prompt",
    "provider",
    "model",
    "tools",
    "max_steps",
    "window",
    "options",
    "output_type",
    "output_retries",
    "limits",
    "conversation_limits",
    "hooks",
    "compact",
    "accepts",
    "memory",
    "context_type",
]
"""Parameters of `Agent`, in their order."""


@pytest.mark.parametrize("module", NAMES)
def test_public_names_stay(module: str) -> None:
    found = importlib.import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []


def test_error_codes_stay() -> None:
    assert {name: getattr(errors, name).code for name in CODES} == CODES


def test_the_parameters_of_an_agent_stay() -> None:
    assert list(inspect.signature(Agent).parameters) == AGENT
