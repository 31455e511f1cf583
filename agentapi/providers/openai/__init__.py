"""OpenAI, and servers that implement its Chat Completions API."""
