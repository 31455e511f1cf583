"""A context for each turn: the prompt, the tools and an approval depend on who asks.

Runs without other processes, in eager mode and without a model.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from agentapi import Agent, InvalidContext, ToolContext, TurnContext, tool
from agentapi.providers import ModelRequest, ModelResponse, register_provider
from agentapi.providers.offline import OfflineProvider
from agentapi.testing import says
from agentapi.tools import BaseTool
from orchestrator import Orchestrator


class Shopper(BaseModel):
    """What the shop knows about a customer."""

    name: str
    language: str = "English"
    plan: str = "free"


def prompt(turn: TurnContext[Shopper]) -> str:
    """The instructions of a turn."""
    shopper = turn.context
    return f"You help {shopper.name}. Answer in {shopper.language}."


def is_large(amount: float, context: ToolContext[Shopper]) -> bool:
    """Whether a colleague must approve the refund."""
    return amount > (100 if context.context.plan == "gold" else 10)


@tool
def my_plan(context: ToolContext[Shopper]) -> str:
    """Look up the customer's plan."""
    return f"{context.context.name} has the {context.context.plan} plan"


@tool(requires_approval=is_large)
def refund(amount: float) -> str:
    """Pay money back."""
    return f"{amount:.2f} euros were paid back"


def tools(turn: TurnContext[Shopper]) -> Sequence[BaseTool]:
    """The tools of a turn."""
    return [my_plan] if turn.context.plan == "free" else [my_plan, refund]


class PromptProvider(OfflineProvider):
    """Calls tools as the offline provider does; otherwise it replies with its own prompt."""

    name = "prompt"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """See `Provider.complete`."""
        if request.messages[-1].content.startswith("Hello"):
            names = ", ".join(spec.name for spec in request.tools)
            return says(f"{request.system_prompt} Tools: {names}.")
        return await super().complete(request)


register_provider("prompt", PromptProvider)

support = Agent(
    name="support",
    system_prompt=prompt,
    provider="prompt",
    tools=tools,
    context_type=Shopper,
)


def main() -> None:
    ann = Shopper(name="Ann", language="French", plan="gold")
    with Orchestrator.eager([support]) as orchestrator:
        print(orchestrator.enqueue("support", "Hello", context=ann).result().text)
        print(orchestrator.enqueue("support", "Hello", context={"name": "Bob"}).result().text)
        print(orchestrator.enqueue("support", "/my_plan", context=ann).result().text)
        turn = orchestrator.enqueue("support", '/refund {"amount": 500}', context=ann)
        print([call.tool for call in turn.pending()], "must be approved")
        try:
            orchestrator.enqueue("support", "Hello", context={"plan": "gold"})
        except InvalidContext as error:
            print(error.code)


if __name__ == "__main__":
    main()
