"""The HTTP gateway: OpenAI's API and a native one, in front of the workers.

`server` and `app` put it together. A request passes `http/` (connection limits, authentication,
body), a route of `openai/` or `native/`, and the caller's `view`, which uses `services`,
`tenants/` (keys and limits) and `conversations/`.
"""

from agentapi.extras import needs_extra

with needs_extra("gateway", "the gateway"):
    from orchestrator.gateway.app import create_app
    from orchestrator.gateway.server import serve

__all__ = ["create_app", "serve"]
