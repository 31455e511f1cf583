"""The agents of a shop, with a model that plays a script: pictures are the same each time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, TypeAlias

from agentapi import Agent, Delegate, ToolContext, delegate, handoff, register_provider, tool
from agentapi.conversation.messages import AssistantMessage, ToolCall, ToolMessage, Usage
from agentapi.errors import ProviderRejected
from agentapi.providers import (
    FinishReason,
    ModelRequest,
    ModelResponse,
    StreamPart,
    TextDelta,
)
from agentapi.testing import call

PROVIDER: Final = "acme"
MODEL: Final = "chat-large"

Line: TypeAlias = str | Sequence[ToolCall] | Exception
"""What the model does in one step: it says something, calls tools, or refuses."""

SCRIPT: Final[dict[str, Sequence[Line]]] = {
    "Where is my parcel?": (
        [call("lookup_order", "c1", order_id="A-1042")],
        "Your order A-1042 left our warehouse in Rotterdam on Monday and is with the carrier now. "
        "It should arrive on Thursday before 18:00.",
    ),
    "Can it come on Friday instead?": (
        [
            call("lookup_order", "c1", order_id="A-1042"),
            call("open_ticket", "c2", subject="Deliver A-1042 on Friday"),
        ],
        "I have asked the carrier to deliver on Friday, ticket T-5531. You will get a mail when "
        "they confirm it.",
    ),
    "The lamp arrived broken.": (
        [call("lookup_order", "c1", order_id="A-0987")],
        [
            call(
                "refund",
                "c2",
                order_id="A-0987",
                amount=249.0,
                reason="The lamp arrived broken; the customer sent a photo of it.",
            )
        ],
        "I am sorry about the lamp. We have paid 249 euros back; they arrive within three days.",
    ),
    "I was charged twice.": (
        [call("lookup_order", "c1", order_id="A-1107")],
        [call("refund", "c2", order_id="A-1107", amount=89.5, reason="The order was paid twice.")],
        "The second payment of 89.50 euros has been paid back.",
    ),
    "Is my invoice right?": (
        [call("transfer_to_billing", "c1")],
        "Yes: the invoice of 3 November contains the lamp and the shipping, 258.90 euros together.",
    ),
    "Compare our three carriers for next year.": (
        [
            call(
                "look_into",
                "c1",
                topics=["prices per parcel", "punctuality in 2026", "complaints of customers"],
            )
        ],
        "Nordpost is the cheapest by 8 %, and the least punctual: 91 % of its parcels came in "
        "time, against 97 % for Velox. Complaints follow the same order. I suggest Velox for "
        "fragile goods, and Nordpost for the rest.",
    ),
    "Summarise today's reviews.": (
        [call("load_reviews", "c1", day="2026-11-26")],
        "Most reviews praise the quick delivery. Four of 31 mention damaged packaging, all of "
        "them lamps.",
    ),
    "Translate the product page into Finnish.": (
        ProviderRejected(
            "provider 'acme' answered 400: the request contains 'internal-notes', which this "
            "deployment does not accept",
            provider=PROVIDER,
            status=400,
        ),
    ),
    "prices per parcel": ("Nordpost 4.10, Velox 4.45, Kurio 4.60 euros.",),
    "punctuality in 2026": ("Velox 97 %, Kurio 95 %, Nordpost 91 % in time.",),
    "complaints of customers": ("Nordpost 214, Kurio 120, Velox 96 in ten months.",),
    "Write the newsletter for December.": (
        "December is the month of light. " * 3 + "Our lamps are ten percent cheaper until the "
        "ninth, and every parcel that is ordered before the eighteenth arrives before the "
        "holidays. " + "We wish you calm days, and a warm kitchen to come home to. " * 40,
    ),
}
"""What the model does after each message, step by step."""

_OTHERWISE: Final = "Thank you, that is noted."


class ScriptedModel:
    """Answers by the script, and takes its time."""

    name = PROVIDER
    takes_attachments = True
    default_model = MODEL

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Answer when a model would have thought for a while."""
        response = _answer(request)
        await asyncio.sleep(0.25 + 0.004 * response.usage.output_tokens)
        return response

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamPart]:
        """Answer word by word."""
        response = _answer(request)
        await asyncio.sleep(0.25)
        for word in response.message.content.split(" "):
            yield TextDelta(text=f"{word} ")
            await asyncio.sleep(0.02)
        yield response

    async def aclose(self) -> None:
        """Nothing to close."""


def _answer(request: ModelRequest) -> ModelResponse:
    said = [
        m.content for m in request.messages if not isinstance(m, AssistantMessage | ToolMessage)
    ]
    step = 0
    for message in reversed(request.messages):
        if isinstance(message, AssistantMessage):
            step += 1
        elif not isinstance(message, ToolMessage):
            break
    lines = SCRIPT.get(said[-1], (_OTHERWISE,))
    line = lines[min(step, len(lines) - 1)]
    if isinstance(line, Exception):
        raise line
    calls = () if isinstance(line, str) else tuple(line)
    content = line if isinstance(line, str) else ""
    sent = 420 + sum(len(message.content) for message in request.messages) // 3
    got = 12 + len(content) // 4 + 22 * len(calls)
    return ModelResponse(
        message=AssistantMessage(content=content, tool_calls=calls),
        usage=Usage(input_tokens=sent, output_tokens=got, cached_tokens=256 if step else 0),
        finish=FinishReason.TOOL_CALLS if calls else FinishReason.STOP,
    )


_ORDERS: Final = {
    "A-0987": "delivered on 20 November, one lamp, 249.00 euros",
    "A-1042": "left Rotterdam on Monday, with Velox, expected on Thursday",
    "A-1107": "waiting for the carrier; two payments of 89.50 euros",
}


@tool
async def lookup_order(order_id: str) -> str:
    """Look up where an order is.

    Args:
        order_id: The number on the invoice.
    """
    await asyncio.sleep(0.15)
    return f"order {order_id}: {_ORDERS.get(order_id, 'unknown')}"


@tool(idempotent=True)
async def open_ticket(subject: str, context: ToolContext) -> dict[str, str]:
    """Open a support ticket.

    Args:
        subject: What it is about, in one line.
    """
    await asyncio.sleep(0.3)
    return {"ticket": "T-5531", "subject": subject}


@tool(requires_approval=lambda amount: amount > 50, approval_timeout=86_400)
async def refund(order_id: str, amount: float, reason: str) -> str:
    """Pay money back. Large amounts need a colleague's approval.

    Args:
        order_id: The number on the invoice.
        amount: In euros.
        reason: Why, for the books.
    """
    return f"{amount:.2f} euros of order {order_id} were paid back"


@tool(idempotent=True)
async def load_reviews(day: str) -> str:
    """Load the reviews of a day.

    Args:
        day: As 2026-11-26.
    """
    await asyncio.sleep(4)
    return f"31 reviews of {day}: 24 good, 3 bad, 4 about damaged packaging"


@tool
def look_into(topics: list[str]) -> list[Delegate]:
    """Ask for research on several topics in parallel.

    Args:
        topics: One line each.
    """
    return [delegate("research", topic) for topic in topics]


def _agent(name: str, prompt: str, *tools: Callable[..., object] | object) -> Agent:
    return Agent(name=name, system_prompt=prompt, provider=PROVIDER, tools=list(tools))  # type: ignore[arg-type]


register_provider(PROVIDER, ScriptedModel)

billing = _agent("billing", "You answer questions about invoices.")
support = _agent(
    "support",
    "You help shoppers with their orders. Be brief.",
    lookup_order,
    open_ticket,
    refund,
    handoff(billing),
)
research = _agent("research", "You collect facts.")
analyst = _agent("analyst", "You compare and recommend.", look_into, load_reviews)
translator = _agent("translator", "You translate product pages.")
writer = _agent("writer", "You write letters to customers.")
