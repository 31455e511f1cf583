"""The gateway's FastAPI application: its routes, and one format for all errors."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from agentapi.errors import AgentAPIError
from orchestrator.gateway import health, start_page
from orchestrator.gateway.console.routes import CONSOLE
from orchestrator.gateway.http.errors import GatewayError, InvalidRequest, Problem, problem_of
from orchestrator.gateway.http.openapi import ALWAYS, errors
from orchestrator.gateway.http.unknown_routes import explain_method, explain_path
from orchestrator.gateway.measuring import count_refusal
from orchestrator.gateway.native import approvals, past, users
from orchestrator.gateway.native import lists as native_lists
from orchestrator.gateway.native import turns as native
from orchestrator.gateway.openai import chat as openai_chat
from orchestrator.gateway.openai import conversations as openai_conversations
from orchestrator.gateway.openai import counting as openai_counting
from orchestrator.gateway.openai import models as openai_models
from orchestrator.gateway.openai import responses as openai_responses
from orchestrator.gateway.openai import stored_chats as openai_stored_chats
from orchestrator.gateway.services import Gateway
from orchestrator.gateway.settings import GatewaySettings


def create_app(settings: GatewaySettings) -> FastAPI:
    """Create the application. It connects only when it is started.

    Raises:
        ConfigurationError: A setting is not valid.
    """
    gateway = Gateway(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        gateway.start()
        yield
        await gateway.aclose()

    app = FastAPI(
        title="agentapi",
        summary="LLM agents behind OpenAI's API and a native API.",
        version=version("agentapi"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.gateway = gateway
    for module in (
        # Routes are tried in this order, so those that start turns come first: each route that does
        # not match adds to the time of the request. Paths of literals may follow those with ids,
        # such as /turns/cancel: they differ in the method, and a whole match wins.
        openai_chat,
        openai_responses,
        native,
        past,
        approvals,
        users,
        native_lists,
        openai_models,
        openai_counting,
        openai_conversations,
        openai_stored_chats,
    ):
        app.include_router(module.router, responses=errors(*ALWAYS))
    if settings.gateway_console:
        for router in CONSOLE:
            app.include_router(router)
    app.include_router(start_page.router)
    app.include_router(health.router)
    app.add_exception_handler(AgentAPIError, _error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _error)
    _correct_document(app)
    return app


def _answer(request: Request, problem: Problem) -> Response:
    count_refusal(problem.status, problem.code)
    # Errors of the console's pages are also pages.
    if answer := getattr(request.state, "answer", None):
        response: Response = answer(problem)
        return response
    return JSONResponse(problem.body(), problem.status, headers=dict(problem.headers))


async def _error(request: Request, error: Exception) -> Response:
    return _answer(request, problem_of(error, getattr(request.state, "tenant", None)))


async def _invalid(request: Request, error: Exception) -> Response:
    """Answer a request that does not match its model with its first fault, in OpenAI's format."""
    fault = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    cause = fault.get("ctx", {}).get("error")
    # One of agentapi's validators refused it, with a better text than pydantic's.
    if isinstance(cause, GatewayError):
        return _answer(request, problem_of(cause))
    # The parameter's name is followed by pydantic's names for the types that it tried.
    where, *place = fault.get("loc", ()) or ("body",)
    param = str(place[0]) if place else None
    if fault.get("type") == "json_invalid":
        why = fault.get("ctx", {}).get("error", "it cannot be read")
        message = f"the body is not valid JSON: {why}"
        return _answer(request, problem_of(InvalidRequest(message, code="invalid_json")))
    message = f"{param or where}: {fault.get('msg', 'not valid')}"
    return _answer(request, problem_of(InvalidRequest(message, param=param)))


async def _http(request: Request, error: Exception) -> Response:
    """Answer requests that Starlette itself refuses: unknown routes and methods, or a body that
    ends early."""
    if not isinstance(error, HTTPException):
        return _answer(request, problem_of(error))
    code, message = "bad_request", str(error.detail)
    method, path = request.method, request.url.path
    if error.status_code == 404:
        code, message = explain_path(method, path)
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        code, message = "method_not_allowed", explain_method(method, path, allowed)
    problem = Problem(
        status=error.status_code,
        kind="invalid_request_error",
        code=code,
        message=message,
        headers=dict(error.headers or {}),
    )
    return _answer(request, problem)


def _correct_document(app: FastAPI) -> None:
    """Remove FastAPI's 422 from the document: here it is a 400 in OpenAI's format."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        document = original()
        for path in document["paths"].values():
            for operation in path.values():
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
