"""What the official Python client's cases share. Strict validation is on."""

from __future__ import annotations

from typing import Any

from kit import BASE, KEY
from openai import OpenAI
from pydantic import BaseModel

STRICT: dict[str, Any] = {"_strict_response_validation": True}
client = OpenAI(base_url=BASE, api_key=KEY, **STRICT)


class Event(BaseModel):
    name: str
    age: int


WEATHER_CHAT: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get current temperature for a given location.",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "City and country"}},
            "required": ["location"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
WEATHER: Any = {"type": "function", **WEATHER_CHAT["function"]}
ASKED = "What is the weather like in Paris today?"
