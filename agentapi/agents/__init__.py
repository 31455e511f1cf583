"""Agents as users define them: definitions, hooks, structured output, and the registry."""
