"""The OpenAI-compatible API: responses, conversations, chat completions, models."""
