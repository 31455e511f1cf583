"""Semantic Kernel's chat service and agents, as its documentation uses them."""

from __future__ import annotations

from typing import Annotated, Any

from kit import BASE, KEY, case, contains, main
from openai import AsyncOpenAI
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import (
    OpenAIChatCompletion,
    OpenAIChatPromptExecutionSettings,
)
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function


def service(name: str = "plain") -> Any:
    client = AsyncOpenAI(base_url=BASE, api_key=KEY)
    return OpenAIChatCompletion(ai_model_id=name, async_client=client)


class MenuPlugin:
    @kernel_function(description="Provides a list of specials from the menu.")
    def get_specials(self, menu: Annotated[str, "The menu."]) -> str:
        return f"Special of {menu}: clam chowder"


@case("quickstart")
async def chat() -> None:
    history = ChatHistory()
    history.add_user_message("Hello there")
    answer = await service().get_chat_message_content(history, OpenAIChatPromptExecutionSettings())
    contains(answer, "ack: Hello there")


@case("instructions")
async def chat_with_system() -> None:
    history = ChatHistory(system_message="Be brief.")
    history.add_user_message("Hello there")
    answer = await service().get_chat_message_content(history, OpenAIChatPromptExecutionSettings())
    contains(answer, "Be brief.")


@case("streaming")
async def streamed() -> None:
    history = ChatHistory()
    history.add_user_message("Hello there")
    text = ""
    async for part in service().get_streaming_chat_message_content(
        history, OpenAIChatPromptExecutionSettings()
    ):
        text += str(part)
    contains(text, "ack: Hello there")


@case("instructions")
async def agent() -> None:
    made = ChatCompletionAgent(
        service=service(), name="SK-Assistant", instructions="You are a helpful assistant."
    )
    answer = await made.get_response(messages="Write a haiku.")
    contains(answer.content, "You are a helpful assistant.", "Write a haiku.")


@case("tools")
async def agent_with_plugin() -> None:
    made = ChatCompletionAgent(
        service=service(),
        name="SK-Assistant",
        instructions="You are a helpful assistant.",
        plugins=[MenuPlugin()],
    )
    answer = await made.get_response(messages="What are the specials of Lunch?")
    contains(answer.content, "clam chowder")


@case("parameters")
async def settings() -> None:
    history = ChatHistory()
    history.add_user_message("hi")
    answer = await service().get_chat_message_content(
        history, OpenAIChatPromptExecutionSettings(temperature=0.6, max_tokens=90)
    )
    contains(answer, "temperature=0.6")


if __name__ == "__main__":
    main()
