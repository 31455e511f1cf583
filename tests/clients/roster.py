"""The clients: where each one's cases and pinned environment are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client, and how its cases are run.

    Attributes:
        name: Name of its environment: `locks/NAME.txt`, or `npm/NAME` for JavaScript.
        cases: File in `cases/`.
        package: The package whose version the report shows.
        title: Shown to people.
    """

    name: str
    cases: str
    package: str
    title: str

    @property
    def javascript(self) -> bool:
        """Whether Node runs its cases."""
        return self.cases.endswith(".mjs")


def _python(name: str, package: str, title: str, cases: str = "") -> Client:
    # Not the package's own name: the cases' folder comes first on the path.
    file = f"{(cases or name).replace('-', '_')}_cases.py"
    return Client(name=name, cases=file, package=package, title=title)


def _node(name: str, package: str, title: str) -> Client:
    return Client(name=name, cases=f"{name}.mjs", package=package, title=title)


CLIENTS: Final = (
    _python("openai-3", "openai", "openai 3", "openai"),
    _python("openai-2", "openai", "openai 2", "openai"),
    _python("openai-1", "openai", "openai 1", "openai"),
    _node("openai-node", "openai", "openai (npm)"),
    _python("langchain", "langchain-openai", "LangChain"),
    _python("litellm", "litellm", "LiteLLM"),
    _python("openai-agents", "openai-agents", "OpenAI Agents SDK"),
    _python("pydantic-ai", "pydantic-ai-slim", "Pydantic AI"),
    _python("instructor", "instructor", "Instructor"),
    _python("llama-index", "llama-index-llms-openai-like", "LlamaIndex"),
    _python("llm", "llm", "llm"),
    _python("haystack", "haystack-ai", "Haystack"),
    _python("autogen", "autogen-ext", "AutoGen"),
    _python("smolagents", "smolagents", "smolagents"),
    _python("strands", "strands-agents", "Strands Agents"),
    _python("dspy", "dspy", "DSPy"),
    _python("agent-framework", "agent-framework-openai", "Microsoft Agent Framework"),
    _python("semantic-kernel", "semantic-kernel", "Semantic Kernel"),
    _python("crewai", "crewai", "CrewAI"),
    _python("shell-gpt", "shell-gpt", "ShellGPT"),
    _node("ai-sdk", "ai", "AI SDK"),
    _node("langchain-js", "@langchain/openai", "LangChain.js"),
)
"""All clients, in the order of the table in docs/gateway.md."""
