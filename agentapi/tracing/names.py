"""Names of spans and attributes: those of OpenTelemetry's GenAI conventions, and agentapi's own.

The conventions are of semantic-conventions-genai 0.1, where nothing is stable yet. They have no
names for waiting turns and attempts, so these are under ``agentapi.``.
"""

from __future__ import annotations

from typing import Final

ENQUEUE: Final = "enqueue"
INVOKE_AGENT: Final = "invoke_agent"
INVOKE_WORKFLOW: Final = "invoke_workflow"
CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"

OPERATION: Final = "gen_ai.operation.name"
AGENT: Final = "gen_ai.agent.name"
CONVERSATION: Final = "gen_ai.conversation.id"
# Several backends group traces by it.
SESSION: Final = "session.id"

PROVIDER: Final = "gen_ai.provider.name"
MODEL: Final = "gen_ai.request.model"
MAX_TOKENS: Final = "gen_ai.request.max_tokens"
TEMPERATURE: Final = "gen_ai.request.temperature"
TOP_P: Final = "gen_ai.request.top_p"
OUTPUT_TYPE: Final = "gen_ai.output.type"
FINISH: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"

TOOL: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
CALL: Final = "gen_ai.tool.call.id"

# Text of people, models and tools; only with AGENTAPI_TRACE_CONTENT.
SYSTEM: Final = "gen_ai.system_instructions"
INPUT: Final = "gen_ai.input.messages"
OUTPUT: Final = "gen_ai.output.messages"
ARGUMENTS: Final = "gen_ai.tool.call.arguments"
RESULT: Final = "gen_ai.tool.call.result"

TURN: Final = "agentapi.turn.id"
PARENT: Final = "agentapi.turn.parent"
CREATED: Final = "agentapi.turn.created"
ATTEMPT: Final = "agentapi.attempt"
EPOCH: Final = "agentapi.epoch"
CAUSE: Final = "agentapi.cause"
WORKER: Final = "agentapi.worker"
OUTCOME: Final = "agentapi.outcome"
STEPS: Final = "agentapi.steps"
COST: Final = "agentapi.cost"
FENCED: Final = "agentapi.fenced"
REPORTED_BY: Final = "agentapi.reported_by"
DELEGATED: Final = "agentapi.delegated"
