"""Parameters of OpenAI's requests that decide something about a turn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentapi.turns import RequestedOutput

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Limit = Annotated[int, Field(ge=1)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Verbosity = Literal["low", "medium", "high"]
Stop = str | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]
Include = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]
SchemaName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextFormat(_Strict):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(_Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(_Strict):
    """A JSON schema and its name."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    name: SchemaName
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    description: str | None = None
    strict: bool | None = None

    def requested(self) -> RequestedOutput:
        """The required form of the reply."""
        return RequestedOutput(
            name=self.name,
            schema=self.schema_,
            description=self.description,
            strict=self.strict,
        )


class ChatSchemaFormat(_Strict):
    """JSON of a schema, as chat completions write it."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class ResponseSchemaFormat(JsonSchema):
    """JSON of a schema, as responses write it."""

    type: Literal["json_schema"]


ChatFormat = Annotated[TextFormat | ObjectFormat | ChatSchemaFormat, Field(discriminator="type")]
ResponseFormat = Annotated[
    TextFormat | ObjectFormat | ResponseSchemaFormat, Field(discriminator="type")
]


class TextOptions(_Strict):
    """The form of a response's text."""

    format: ResponseFormat | None = None
    verbosity: Verbosity | None = None


class Reasoning(_Strict):
    """How much the model reasons. The gateway shows no reasoning, so summaries are ignored."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None
