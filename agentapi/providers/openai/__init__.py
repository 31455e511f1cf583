"""OpenAI, and servers that speak its Chat Completions API."""
