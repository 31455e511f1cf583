"""The `agentapi` command."""
