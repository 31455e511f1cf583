"""The HTTP gateway: OpenAI's API and a native one, in front of the workers."""

from agentapi.extras import needs_extra

with needs_extra("gateway", "the gateway"):
    from orchestrator.gateway.app import create_app
    from orchestrator.gateway.server import serve

__all__ = ["create_app", "serve"]
