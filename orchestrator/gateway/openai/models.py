"""`/v1/models`: agents as models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from orchestrator.gateway.dependencies import View
from orchestrator.gateway.http.errors import NotFound
from orchestrator.gateway.http.openapi import errors
from orchestrator.gateway.openai.schemas import ModelObject, ModelsObject

router = APIRouter(prefix="/v1/models", tags=["openai"])


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "agentapi"}


@router.get("", response_model=None, responses={200: {"model": ModelsObject}})
async def list_models(view: View) -> dict[str, Any]:
    """List the agents."""
    names = await view.gateway.agents.names()
    return {"object": "list", "data": [_model(name) for name in names]}


@router.get("/{model}", response_model=None, responses={200: {"model": ModelObject}, **errors(404)})
async def get_model(model: str, view: View) -> dict[str, Any]:
    """Retrieve an agent."""
    if model not in await view.gateway.agents.names():
        raise NotFound(f"there is no model {model!r}", param="model", code="model_not_found")
    return _model(model)
